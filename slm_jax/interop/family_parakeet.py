"""FastConformer as Parakeet has it (`ParakeetEncoder`, `ParakeetForCTC` of transformers; NeMo's own names too).

Spelling "nemo" is that of a `.nemo` file's `model_weights.ckpt`: an encoder below `encoder.`, a CTC head below
`decoder.`; it needs a `config.json` in transformers' form beside it. Statistics of batch norms are folded on reading
(`interop.transforms.BatchNorm`).
"""

from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.encoders.preemphasised_mel import HOP, N_FFT, RATE_HZ, WINDOW, PreemphasisedMelConfig
from slm_jax.encoders.ssl_ctc import CTCEncoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, below, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, BatchNorm, Conv, Conv2d, Dense, Pointwise

NAME, CTC_NAME = "parakeet_encoder", "parakeet_ctc"
LAYERS = "conformer/stack/layers"
FIXED = {
    "subsampling_conv_kernel_size": (3,),
    "subsampling_conv_stride": (2,),
    "dropout_positions": (0.0, 0),
}
UNREAD = ("max_position_embeddings", "initializer_range", "num_key_value_heads")
"""A bound that nothing checks, how weights were drawn, the heads once more."""
CTC_UNREAD = ("ctc_loss_reduction", "ctc_zero_infinity", "initializer_range")
FEATURES: dict[str, Any] = {
    "feature_extractor_type": "ParakeetFeatureExtractor",
    "hop_length": HOP,
    "n_fft": N_FFT,
    "win_length": WINDOW,
    "sampling_rate": RATE_HZ,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
}
"""`preprocessor_config.json` beside its bands and its emphasis."""
NAMES: dict[str, dict[str, str]] = {
    "transformers": {
        "strided": "subsampling.layers",
        "map": "subsampling.linear",
        "query, key, value": "q_proj k_proj v_proj",
        "out": "o_proj",
        "distance": "relative_k_proj",
        "biases": "bias_u bias_v",
        "filtered": "norm",
    },
    "nemo": {
        "strided": "pre_encode.conv",
        "map": "pre_encode.out",
        "query, key, value": "linear_q linear_k linear_v",
        "out": "linear_out",
        "distance": "linear_pos",
        "biases": "pos_bias_u pos_bias_v",
        "filtered": "batch_norm",
    },
}
AT = "layers.{i}"


def read_config(hub: Hub) -> FastConformerConfig:
    """Our config of the encoder."""
    fields = HubConfig(NAME, hub, FIXED)
    fields.read |= set(UNREAD)
    mels = fields.number("num_mel_bins", 80)
    return fields.make(
        FastConformerConfig,
        mel=PreemphasisedMelConfig(mels=mels, emphasis=_emphasis(fields, mels)),
        factor=fields.number("subsampling_factor", 8),
        channels=fields.number("subsampling_conv_channels", 256),
        layers=fields.number("num_hidden_layers", 24),
        width=fields.number("hidden_size", 1024),
        heads=fields.number("num_attention_heads", 8),
        hidden=fields.number("intermediate_size", 4096),
        kernel=fields.number("conv_kernel_size", 9),
        bias=fields.flag("attention_bias", True),
        conv_bias=fields.flag("convolution_bias", True),
        activation=fields.activation("hidden_act", "silu"),
        scale_input=fields.flag("scale_input", True),
        dropout=fields.number("dropout", 0.1),
        attention_dropout=fields.number("attention_dropout", 0.1),
        activation_dropout=fields.number("activation_dropout", 0.1),
        layer_drop=fields.number("layerdrop", 0.1),
    )


def write_config(config: FastConformerConfig) -> dict[str, Any]:
    """The `config.json` of our config; raises `UserError` for a streaming one, which the class is not."""
    hub = {
        "model_type": NAME,
        "architectures": ["ParakeetEncoder"],
        "num_mel_bins": config.mel.mels,
        "subsampling_factor": config.factor,
        "subsampling_conv_channels": config.channels,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden,
        "conv_kernel_size": config.kernel,
        "attention_bias": config.bias,
        "convolution_bias": config.conv_bias,
        "hidden_act": HUB_ACTIVATIONS[config.activation],
        "scale_input": config.scale_input,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "layerdrop": config.layer_drop,
        "preprocessor_config": {**FEATURES, "feature_size": config.mel.mels, "preemphasis": config.mel.emphasis},
    }
    require_said(NAME, config, read_config(hub))
    return hub


def read_ctc_config(hub: Hub) -> CTCEncoderConfig:
    """Our config of the encoder with its head; the blank is the last class (`pad_token_id`)."""
    fields = HubConfig(CTC_NAME, hub)
    fields.read |= set(CTC_UNREAD)
    inner, beside = fields.get("encoder_config", {}), fields.get("preprocessor_config")
    encoder = read_config(inner if beside is None else {**inner, "preprocessor_config": beside})
    return fields.make(CTCEncoderConfig, encoder=encoder, classes=fields.number("vocab_size", 1025))


def write_ctc_config(config: CTCEncoderConfig) -> dict[str, Any]:
    """The `config.json` of an encoder with its head."""
    encoder = config.encoder
    hub: dict[str, Any] = {
        "model_type": CTC_NAME,
        "architectures": ["ParakeetForCTC"],
        "vocab_size": config.classes,
        "pad_token_id": config.classes - 1,
        "encoder_config": {},
    }
    if isinstance(encoder, FastConformerConfig):
        inner = write_config(encoder)
        hub |= {"preprocessor_config": inner.pop("preprocessor_config"), "encoder_config": inner}
    require_said(CTC_NAME, config, read_ctc_config(hub))
    return hub


def table(config: FastConformerConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    nemo = spelling == "nemo"
    rules = encoder_rules(config, spelling)
    return Table(
        rules=below(rules, "encoder.", "") if nemo else rules,
        ignored=(
            rf"(encoder\.)?{AT.replace('{i}', '[0-9]+')}\.conv\.(batch_)?norm\.num_batches_tracked",
            # of NeMo: filters and window of the spectra, what reads the encoder
            *((r"preprocessor\..*", r"spec_augmentation\..*", r"(ctc_)?decoder\..*", r"joint\..*") if nemo else ()),
        ),
        renames=() if nemo else ((r"^encoder\.", ""),),
    )


def ctc_table(config: CTCEncoderConfig, spelling: str = "transformers") -> Table:
    """The encoder below its name, and the head."""
    assert isinstance(config.encoder, FastConformerConfig)  # for the type checker
    inner = table(config.encoder, spelling)
    head = "decoder.decoder_layers.0" if spelling == "nemo" else "ctc_head"
    rules = below(encoder_rules(config.encoder, spelling), "encoder.", "encoder/")
    kept = tuple(pattern for pattern in inner.ignored if "decoder" not in pattern)
    return Table(rules=(*rules, *weights(head, "head", Pointwise(), SAME)), ignored=kept)


def encoder_rules(config: FastConformerConfig, spelling: str) -> tuple[Rule, ...]:
    """The names without anything before them."""
    names = NAMES[spelling]
    return (
        *strided_rules(names["strided"], config.factor.bit_length() - 1),
        *weights(names["map"], "striding/map", Dense(), SAME),
        *layer_rules(names, config.norm),
    )


def layer_rules(names: dict[str, str], filtered: str) -> tuple[Rule, ...]:
    """The names of the layers; `filtered`: the kind of norm in their convolutions."""
    conv = f"{AT}.conv"
    return (
        *_block("1", "mlp_in"),
        *norm(f"{AT}.norm_self_att", f"{LAYERS}/attention_norm"),
        *_attention(names),
        *norm(f"{AT}.norm_conv", f"{LAYERS}/conv_norm"),
        *weights(f"{conv}.pointwise_conv1", f"{LAYERS}/conv_in", Pointwise(), SAME),
        *weights(f"{conv}.depthwise_conv", f"{LAYERS}/conv", Conv(), SAME),
        *_filtered(f"{conv}.{names['filtered']}", filtered),
        *weights(f"{conv}.pointwise_conv2", f"{LAYERS}/conv_out", Pointwise(), SAME),
        *_block("2", "mlp_out"),
        *norm(f"{AT}.norm_out", f"{LAYERS}/final_norm"),
    )


def strided_rules(source: str, depth: int) -> tuple[Rule, ...]:
    """Convolutions with their maps, and a rectifier that has no weights behind each pair."""
    found: list[Rule] = []
    for place in range(depth):
        at = f"{source}.{3 * place - 1 if place else 0}"
        found.append(rule(f"{at}.weight", f"striding/conv_{place}_kernel", Conv2d()))
        found.append(rule(f"{at}.bias", f"striding/conv_{place}_bias"))
        if place:
            found += weights(f"{source}.{3 * place}", f"striding/mix_{place}", Pointwise(2), SAME)
    return tuple(found)


def _block(number: str, target: str) -> tuple[Rule, ...]:
    at = f"{AT}.feed_forward{number}"
    return (
        *norm(f"{AT}.norm_feed_forward{number}", f"{LAYERS}/{target}_norm"),
        *weights(f"{at}.linear1", f"{LAYERS}/{target}/up", Dense(), SAME),
        *weights(f"{at}.linear2", f"{LAYERS}/{target}/down", Dense(), SAME),
    )


def _attention(names: dict[str, str]) -> tuple[Rule, ...]:
    source, target = f"{AT}.self_attn", f"{LAYERS}/attention"
    theirs, ours = names["query, key, value"].split(), ("query", "key", "value")
    into = (weights(f"{source}.{one}", f"{target}/{own}", Dense(), FLAT) for one, own in zip(theirs, ours, strict=True))
    content, distance = names["biases"].split()
    return (
        *chain.from_iterable(into),
        *weights(f"{source}.{names['out']}", f"{target}/out", Dense(2), SAME),
        *weights(f"{source}.{names['distance']}", f"{target}/distance", Dense()),
        rule(f"{source}.{content}", f"{target}/content_bias"),
        rule(f"{source}.{distance}", f"{target}/distance_bias"),
    )


def _filtered(source: str, kind: str) -> tuple[Rule, ...]:
    target = f"{LAYERS}/filtered_norm"
    if kind == "layer":
        return norm(source, target)
    parts = ("weight", "bias", "running_mean", "running_var")
    return (Rule(tuple(f"{source}.{part}" for part in parts), (f"{target}/scale", f"{target}/bias"), BatchNorm()),)


def _emphasis(fields: HubConfig, mels: int) -> float:
    """The pre-emphasis; notes a fault where the file beside a config says what we do not compute."""
    given = fields.get("preprocessor_config", {})
    for name, value in {**FEATURES, "feature_size": mels}.items():
        found = given.get(name, value)
        fields.unless(found == value, f"preprocessor_config.{name}", found, f"only {value!r} is supported")
    return float(given.get("preemphasis", 0.97))


def boxed_params(config: FastConformerConfig | CTCEncoderConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    row = jax.ShapeDtypeStruct((1, 16_000), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), row)["params"]


def abstract_params(config: FastConformerConfig | CTCEncoderConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


PARAKEET = Family(
    name=NAME,
    config_type=FastConformerConfig,
    spellings=("transformers", "nemo"),
    matches=is_type(NAME),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
    side_files=("preprocessor_config",),
)
PARAKEET_CTC = Family(
    name=CTC_NAME,
    config_type=CTCEncoderConfig,
    spellings=("transformers", "nemo"),
    matches=is_type(CTC_NAME),
    read_config=read_ctc_config,
    write_config=write_ctc_config,
    table=ctc_table,
    abstract=abstract_params,
    boxed=boxed_params,
    side_files=("preprocessor_config",),
)
