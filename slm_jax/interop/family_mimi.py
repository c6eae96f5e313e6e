"""Mimi: `MimiModel` of transformers (files, and what it holds in memory), and Kyutai's own names.

Codebooks come as parameters (`learning="gradient"`): the averages behind them are not read.
"""

import math
from typing import Any

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.interop.codec_shapes import (
    Averaged,
    abstract_params,
    both,
    boxed_params,
    read_seanet,
    seanet_parts,
    seanet_rules,
    write_seanet,
)
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, norm, rule
from slm_jax.interop.transforms import Conv, Dense, Each, Fused, Rotary
from slm_jax.nn.frame_transformer import FrameTransformerConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig

FIXED: dict[str, tuple] = {
    "audio_channels": (1,),
    "use_causal_conv": (True,),
    "trim_right_ratio": (1.0,),
    "hidden_act": ("gelu",),
    "attention_bias": (False,),
    "use_streaming": (False, True),
    "_frame_rate": (),
    "tie_word_embeddings": (True, False),
}
UNSAID = ("encoder.dtype", "decoder.dtype", "whole", "context.dtype", "context.unroll", "context.remat")
"""Of running."""
PARTS = {"parts_0": ("semantic", "first"), "parts_1": ("acoustic", "rest")}
"""Ours -> transformers' and Kyutai's name of a part of the quantizer."""
RENAMES = (
    (r"^encoder\.encoder_seanet\.", "encoder."),
    (r"^decoder\.decoder_seanet\.", "decoder."),
    (r"^(?:encoder|decoder)\.((?:en|de)coder_transformer|downsample|upsample)\.", r"\1."),
)
"""What transformers 5 calls in memory as it never did in files."""
RESIDUALS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
KYUTAI_RESIDUALS = {"norm1": "attention_norm", "norm2": "mlp_norm"}


def read_config(hub: Hub) -> CodecConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("mimi", hub, FIXED)
    fields.read |= {"max_position_embeddings", "initializer_range"}
    defaults = {"hidden_size": 512, "upsampling_ratios": [8, 6, 5, 4]}
    fields.fields = {**defaults, **{name: value for name, value in hub.items() if value is not None}}
    settings = read_seanet(fields, filters=64, shortcut=False, padding="constant", last=3)
    settings |= {"lstm": 0, "weight_norm": False}
    width, rate = settings["width"], fields.number("sampling_rate", 24_000)
    hop = math.prod(settings["strides"])
    per_second = fields.number("frame_rate", rate / hop / 2)
    stride = round(-(-rate // hop) / per_second)
    groups = fields.number("upsample_groups", 512)
    fields.unless(groups == width, "upsample_groups", groups, f"each of the {width} channels alone is supported")
    return fields.make(
        CodecConfig,
        **both(settings),
        quantizer=_quantizer(fields, width),
        context=_context(fields, width),
        stride=stride,
        whole=True,
        rate_hz=rate,
    )


def _quantizer(fields: HubConfig, width: int) -> ParallelVQConfig:
    books, first = fields.number("num_quantizers", 32), fields.number("num_semantic_quantizers", 1)
    inner, own = fields.number("vector_quantization_hidden_dimension", 256), fields.number("codebook_dim", 256)
    fields.unless(inner == own, "codebook_dim", own, f"must be the {inner} channels of the maps")
    codebook = CodebookConfig(size=fields.number("codebook_size", 2048), width=own, learning="gradient")
    part = ResidualVQConfig(width=width, books=first, codebook=codebook, projection="around")
    return ParallelVQConfig(parts=(part, part.replace(books=books - first)))


def _context(fields: HubConfig, width: int) -> FrameTransformerConfig:
    heads = fields.number("num_attention_heads", 8)
    groups, channels = fields.number("num_key_value_heads", heads), fields.number("head_dim", width // heads)
    fields.unless(groups == heads, "num_key_value_heads", groups, f"as many as the {heads} heads")
    fields.unless(channels * heads == width, "head_dim", channels, f"must be {width // heads}")
    rope = dict(fields.get("rope_parameters", {}))
    fields.unless(rope.get("rope_type", "default") == "default", "rope_parameters", rope, "default rotations only")
    return FrameTransformerConfig(
        width=width,
        layers=fields.number("num_hidden_layers", 8),
        heads=heads,
        hidden=fields.number("intermediate_size", 2048),
        window=fields.number("sliding_window", 250),
        scale=fields.number("layer_scale_initial_scale", 0.01),
        rope_base=float(rope.get("rope_theta", fields.get("rope_theta", 10_000.0))),
        epsilon=fields.number("norm_eps", 1e-5),
        dropout=fields.number("attention_dropout", 0.0),
    )


def write_config(config: CodecConfig) -> dict[str, Any]:
    """The `config.json` of `MimiModel`; raises `UserError` for another form of codec."""
    (encoder, _), quantizer, context = seanet_parts(config, "mimi"), config.quantizer, config.context
    if not isinstance(quantizer, ParallelVQConfig) or len(quantizer.parts) != 2 or context is None:
        raise UserError("mimi has two quantizers side by side and transformers around them")
    hub = {
        "model_type": "mimi",
        "architectures": ["MimiModel"],
        **write_seanet(encoder),
        "sampling_rate": config.rate_hz,
        "codebook_size": quantizer.parts[0].codebook.size,
        "codebook_dim": quantizer.parts[0].codebook.width,
        "vector_quantization_hidden_dimension": quantizer.parts[0].codebook.width,
        "num_quantizers": quantizer.books,
        "num_semantic_quantizers": quantizer.parts[0].books,
        "upsample_groups": config.encoder.width,
        "num_hidden_layers": context.layers,
        "num_attention_heads": context.heads,
        "num_key_value_heads": context.heads,
        "head_dim": context.width // context.heads,
        "intermediate_size": context.hidden,
        "sliding_window": context.window,
        "layer_scale_initial_scale": context.scale,
        "rope_parameters": {"rope_theta": context.rope_base, "rope_type": "default"},
        "norm_eps": context.epsilon,
        "attention_dropout": context.dropout,
    }
    require_said("mimi", config, read_config(hub), UNSAID)
    return hub


def table(config: CodecConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    (encoder, decoder), kyutai = seanet_parts(config, "mimi"), spelling == "kyutai"
    layers, conv, up = ("model", "conv.conv", "convtr.convtr") if kyutai else ("layers", "conv", "conv")
    resample = (
        ("downsample.conv.conv.conv", "upsample.convtr.convtr.convtr")
        if kyutai
        else (
            "downsample.conv",
            "upsample.conv",
        )
    )
    transformer = _kyutai_layers if kyutai else _layers
    return Table(
        rules=(
            *seanet_rules(encoder, f"encoder.{layers}", "encoder", conv, up),
            *seanet_rules(decoder, f"decoder.{layers}", "decoder", conv, up),
            *transformer("encoder_transformer", "encoder_context/blocks/layers"),
            *transformer("decoder_transformer", "decoder_context/blocks/layers"),
            rule(f"{resample[0]}.weight", "down/kernel", Conv()),
            rule(f"{resample[1]}.weight", "up/kernel", Conv()),  # each channel alone
            *(one for part, names in PARTS.items() for one in _book_rules(part, names, kyutai)),
        ),
        renames=() if kyutai else RENAMES,
    )


def _layers(source: str, target: str) -> tuple[Rule, ...]:
    """One Transformer in transformers' names."""
    at, heads = f"{source}.layers.{{i}}", Dense(1)
    return (
        *(rule(f"{at}.self_attn.{n[0]}_proj.weight", f"{target}/attention/{n}/kernel", heads) for n in QKV),
        rule(f"{at}.self_attn.o_proj.weight", f"{target}/attention/out/kernel", Dense(2)),
        rule(f"{at}.mlp.fc1.weight", f"{target}/mlp/up/kernel", Dense()),
        rule(f"{at}.mlp.fc2.weight", f"{target}/mlp/down/kernel", Dense()),
        *(one for theirs, ours in RESIDUALS.items() for one in norm(f"{at}.{theirs}", f"{target}/{ours}")),
        rule(f"{at}.self_attn_layer_scale.scale", f"{target}/attention_scale"),
        rule(f"{at}.mlp_layer_scale.scale", f"{target}/mlp_scale"),
    )


QKV = ("query", "key", "value")


def _kyutai_layers(source: str, target: str) -> tuple[Rule, ...]:
    """One Transformer in Kyutai's names, whose rotations turn neighbouring channels."""
    at = f"{source}.transformer.layers.{{i}}"
    qkv = tuple(f"{target}/attention/{name}/kernel" for name in QKV)
    turned = Fused(Each((Rotary(Dense()), Rotary(Dense()), Dense())))
    return (
        Rule((f"{at}.self_attn.in_proj_weight",), qkv, turned),
        Rule((f"{at}.self_attn.in_projs.0.weight",), qkv, turned),
        rule(f"{at}.self_attn.out_proj.weight", f"{target}/attention/out/kernel", Dense(2)),
        rule(f"{at}.self_attn.out_projs.0.weight", f"{target}/attention/out/kernel", Dense(2)),
        rule(f"{at}.linear1.weight", f"{target}/mlp/up/kernel", Dense()),
        rule(f"{at}.linear2.weight", f"{target}/mlp/down/kernel", Dense()),
        *(one for theirs, ours in KYUTAI_RESIDUALS.items() for one in norm(f"{at}.{theirs}", f"{target}/{ours}")),
        rule(f"{at}.layer_scale_1.scale", f"{target}/attention_scale"),
        rule(f"{at}.layer_scale_2.scale", f"{target}/mlp_scale"),
    )


def _book_rules(part: str, names: tuple[str, str], kyutai: bool) -> tuple[Rule, ...]:
    """One part of the quantizer."""
    target = f"quantizer/{part}"
    if kyutai:
        source, book = f"quantizer.rvq_{names[1]}", "vq.layers.{i}._codebook"
        kinds = {"embedding_sum": "sums", "cluster_usage": "usage", "_initialized": "begun"}
    else:
        source, book = f"quantizer.{names[0]}_residual_vector_quantizer", "layers.{i}.codebook"
        kinds = {"embed_sum": "sums", "cluster_usage": "usage", "initialized": "begun"}
    sources = tuple(f"{source}.{book}.{name}" for name in kinds)
    return (
        Rule(sources, (f"{target}/codebooks/entries",), Averaged(tuple(kinds.values()))),
        rule(f"{source}.input_proj.weight", f"{target}/into/kernel", Conv()),
        rule(f"{source}.output_proj.weight", f"{target}/back/kernel", Conv()),
    )


MIMI = Family(
    name="mimi",
    config_type=CodecConfig,
    spellings=("transformers", "kyutai"),
    matches=is_type("mimi"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
)
