"""T5 and its version 1.1 (Raffel et al. 2020), mT5 (Xue et al. 2021): `T5ForConditionalGeneration` and its twin.

Transformers 5 says of every head that it is tied, and keeps it apart all the same where a file has one that differs
from the table. So the names of the weights decide where the config leaves it open.
"""

from collections.abc import Collection
from functools import partial
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.interop.decoder_shapes import plain
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.transforms import Dense
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.sequence_models.t5 import t5_form

FIXED = {"is_encoder_decoder": (True,)}
ANY_VALUE = ("n_positions", "initializer_factor", "classifier_dropout")
"""Fields that change no number that the model computes from ids."""
DEFAULTS = {"t5": (32128, 2048, 6, 8, "relu"), "mt5": (250112, 1024, 8, 6, "gated-gelu")}
"""Vocabulary, hidden, layers, heads and feed-forward block where a field is absent."""
BLOCKS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}
"""`feed_forward_proj` -> our activation, and whether it is gated; the gated GELU is the one through tanh."""
CLASSES = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}
TOKENS, HEAD = "shared.weight", "lm_head.weight"


def read_config(kind: str, hub: Hub) -> EncoderDecoderConfig:
    """Our config of a `config.json` whose `model_type` is `kind`."""
    fields = HubConfig(kind, hub, FIXED)
    form = read_form(fields, kind)
    tied = fields.flag("tie_word_embeddings", True)
    scaled = fields.flag("scale_decoder_outputs", tied) if kind == "t5" else False
    decoder = form.decoder.replace(
        layers=fields.number("num_decoder_layers", form.encoder.layers),
        tied_head=tied,
        head_scale=form.width**-0.5 if scaled else 1.0,
    )
    return fields.make(EncoderDecoderConfig, encoder=form.encoder, decoder=decoder)


def read_form(fields: HubConfig, kind: str) -> EncoderDecoderConfig:
    """Both stacks by the fields that they share, each with `num_layers`; the head is one of its own.

    `kind`: whose defaults stand in where a field is absent.
    """
    fields.read |= set(ANY_VALUE)
    vocabulary, hidden, layers, heads, block = DEFAULTS[kind]
    width, layers = fields.number("d_model", 512), fields.number("num_layers", layers)
    activation, gated = _block(fields, block)
    rate = fields.number("dropout_rate", 0.1)
    bias = RelativeBiasConfig(
        buckets=fields.number("relative_attention_num_buckets", 32),
        max_distance=fields.number("relative_attention_max_distance", 128),
    )
    heads, head_width = fields.number("num_heads", heads), fields.number("d_kv", 64)
    return t5_form(
        (layers, width, heads, head_width, fields.number("d_ff", hidden)),
        fields.number("vocab_size", vocabulary),
        norm_epsilon=fields.number("layer_norm_epsilon", 1e-6),
        activation=activation,
        gated=gated,
        relative_bias=bias,
        dropout=rate,
        attention_dropout=rate,
        activation_dropout=rate,
    )


def write_config(kind: str, config: EncoderDecoderConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    encoder, decoder = config.encoder, config.decoder
    hub = {
        "model_type": kind,
        "architectures": [CLASSES[kind]],
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        **write_form(decoder),
        "num_layers": encoder.layers,
        "num_decoder_layers": decoder.layers,
    }
    if kind == "t5":
        hub["scale_decoder_outputs"] = decoder.head_scale != 1.0
    unsaid = (r"(en|de)coder\.(unroll|remat|dtype|dropout|attention_dropout|activation_dropout|init_scale)",)
    require_said(kind, _plain(config), _plain(read_config(kind, hub)), unsaid)
    return hub


def write_form(decoder: DecoderConfig) -> dict[str, Any]:
    """The fields of `read_form` and the head, by the stack that has one."""
    kinds = [name for name, block in BLOCKS.items() if block == (decoder.activation, decoder.gated)]
    hub = {
        "vocab_size": decoder.vocabulary,
        "d_model": decoder.width,
        "d_kv": decoder.channels,
        "d_ff": decoder.hidden,
        "num_heads": decoder.heads,
        "num_layers": decoder.layers,
        "feed_forward_proj": kinds[0] if kinds else "relu",
        "layer_norm_epsilon": decoder.norm_epsilon,
        "dropout_rate": decoder.dropout,
        "tie_word_embeddings": decoder.tied_head,
    }
    if decoder.relative_bias is not None:
        hub["relative_attention_num_buckets"] = decoder.relative_bias.buckets
        hub["relative_attention_max_distance"] = decoder.relative_bias.max_distance
    return hub


def told_by_names(config: EncoderDecoderConfig, names: Collection[str]) -> EncoderDecoderConfig:
    """With a head of its own where the weights have one and its features are not scaled as those of a tied one."""
    apart = config.decoder.head_scale == 1.0 and {TOKENS, HEAD} <= set(names)
    return config.replace(decoder=config.decoder.replace(tied_head=False)) if apart else config


def table(config: EncoderDecoderConfig, spelling: str = "transformers") -> Table:
    """The names of `transformers`."""
    tied, gated = config.decoder.tied_head, config.decoder.gated
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *([HEAD] if tied else [])]
    return Table(
        rules=(
            rule(TOKENS, "decoder/tokens/embedding"),
            *below(stack_rules(gated, last=1), "encoder.", "encoder/"),
            *below(stack_rules(gated, last=2, crossed=True), "decoder.", "decoder/"),
            *(() if tied else (rule(HEAD, "decoder/head_kernel", Dense()),)),
        ),
        # left in old files by a mistake of their writer: attention to a context has no distances
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        tied=dict.fromkeys(copies, TOKENS),
    )


def stack_rules(gated: bool, last: int, crossed: bool = False) -> tuple[Rule, ...]:
    """The rules of one stack's layers, distances and final norm.

    `last`: which part of a layer, counted from 0, is its feed-forward block. `crossed`: part 1 listens to a context.
    """
    at, ours = "block.{i}.layer", "blocks/layers"
    maps = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    block = (weights(f"{at}.{last}.DenseReluDense.{name}", f"{ours}/mlp/{own}", Dense()) for own, name in maps.items())
    return (
        rule("block.0.layer.0.SelfAttention.relative_attention_bias.weight", "relative_bias/embedding"),
        *_attention(f"{at}.0.SelfAttention", f"{ours}/attention"),
        *norm(f"{at}.0.layer_norm", f"{ours}/attention_norm", bias=False),
        *(_attention(f"{at}.1.EncDecAttention", f"{ours}/cross_attention") if crossed else ()),
        *(norm(f"{at}.1.layer_norm", f"{ours}/cross_norm", bias=False) if crossed else ()),
        *chain.from_iterable(block),
        *norm(f"{at}.{last}.layer_norm", f"{ours}/mlp_norm", bias=False),
        *norm("final_layer_norm", "final_norm", bias=False),
    )


def _attention(source: str, target: str) -> tuple[Rule, ...]:
    maps = {"query": Dense(), "key": Dense(), "value": Dense(), "out": Dense(inputs=2)}
    return tuple(chain.from_iterable(weights(f"{source}.{n[0]}", f"{target}/{n}", map_) for n, map_ in maps.items()))


def boxed_params(config: EncoderDecoderConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(config.make().init, jax.random.key(0), ids, ids)["params"]


def abstract_params(config: EncoderDecoderConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _block(fields: HubConfig, default: str) -> tuple[str, bool]:
    """Activation and gate; what newer files say of them apart must agree."""
    name = str(fields.get("feed_forward_proj", default))
    fields.unless(name in BLOCKS, "feed_forward_proj", name, f"must be one of {', '.join(BLOCKS)}")
    told = {"dense_act_fn": "gelu_new" if name == "gated-gelu" else name.removeprefix("gated-")}
    for field, value in (told | {"is_gated_act": name.startswith("gated-")}).items():
        found = fields.get(field, value)
        fields.unless(found == value, field, found, f"must be {value!r} as feed_forward_proj says")
    return BLOCKS.get(name, BLOCKS[default])


def _plain(config: EncoderDecoderConfig) -> EncoderDecoderConfig:
    return config.replace(encoder=plain(config.encoder), decoder=plain(config.decoder))


T5, MT5 = (
    Family(
        name=kind,
        config_type=EncoderDecoderConfig,
        spellings=("transformers",),
        matches=is_type(kind),
        read_config=partial(read_config, kind),
        write_config=partial(write_config, kind),
        table=table,
        abstract=abstract_params,
        boxed=boxed_params,
        told_by_names=told_by_names,
    )
    for kind in ("t5", "mt5")
)
