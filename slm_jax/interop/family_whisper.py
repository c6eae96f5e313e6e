"""Whisper (Radford et al. 2022).

Spelling "transformers" is that of `WhisperForConditionalGeneration`, "openai" that of the original checkpoints, which
need a `config.json` in transformers' form beside them.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.assemblies.whisper import Whisper, WhisperConfig, whisper_decoder
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import HUB_ACTIVATIONS, Hub, HubConfig, is_type, require_said
from slm_jax.interop.table import Rule, Table, norm, rule, weights
from slm_jax.interop.transforms import FLAT, SAME, Conv, Dense
from slm_jax.sequence_models.decoder_config import DecoderConfig

RATE_HZ = 16_000
RATES = ("dropout", "attention_dropout", "activation_dropout")
FIXED = {"use_weighted_layer_sum": (False,), "is_encoder_decoder": (True,)}
ANY_VALUE = (
    # heads that are no part of the model, what was masked in training, word times from attention
    *("classifier_proj_size", "apply_spec_augment", "mask_time_prob", "mask_time_length", "mask_time_min_masks"),
    *("mask_feature_prob", "mask_feature_length", "mask_feature_min_masks", "median_filter_width", "alignment_heads"),
    # settings of decoding, and the layers that are counted twice
    *(
        "forced_decoder_ids",
        "num_hidden_layers",
        "decoder_layerdrop",
        "lang_to_id",
        "task_to_id",
        "no_timestamps_token_id",
    ),
)
"""Fields that change no number that the model computes from samples and ids."""
FEATURES: dict[str, Any] = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "sampling_rate": RATE_HZ,
    "n_fft": 400,
    "hop_length": 160,
}
"""`preprocessor_config.json`: what we compute, whatever the size."""
NAMES: dict[str, dict[str, Any]] = {
    "transformers": {
        "encoder": "model.encoder",
        "decoder": "model.decoder",
        "layer": "layers.{i}",
        "positions": "embed_positions.weight",
        "tokens": "embed_tokens.weight",
        "attention": ("self_attn", "self_attn_layer_norm"),
        "cross": ("encoder_attn", "encoder_attn_layer_norm"),
        "maps": ("q_proj", "k_proj", "v_proj", "out_proj"),
        "mlp": ("fc1", "fc2", "final_layer_norm"),
        "norms": ("layer_norm", "layer_norm"),
    },
    "openai": {
        "encoder": "encoder",
        "decoder": "decoder",
        "layer": "blocks.{i}",
        "positions": "positional_embedding",
        "tokens": "token_embedding.weight",
        "attention": ("attn", "attn_ln"),
        "cross": ("cross_attn", "cross_attn_ln"),
        "maps": ("query", "key", "value", "out"),
        "mlp": ("mlp.0", "mlp.2", "mlp_ln"),
        "norms": ("ln_post", "ln"),
    },
}


def read_config(hub: Hub) -> WhisperConfig:
    """Our config of a `config.json`."""
    fields = HubConfig("whisper", hub, FIXED)
    fields.read |= set(ANY_VALUE)
    scaled = fields.flag("scale_embedding", False)
    fields.unless(not scaled, "scale_embedding", scaled, "must be false")
    activation = fields.activation("activation_function", "gelu")
    fields.unless(activation == "gelu", "activation_function", activation, "must be gelu")
    rates = {name: fields.number(name, 0.0) for name in RATES}
    encoder, decoder = _encoder(fields, rates), _decoder(fields, rates)
    _check_features(fields, encoder)
    return fields.make(WhisperConfig, encoder=encoder, decoder=decoder)


def _encoder(fields: HubConfig, rates: Mapping[str, Any]) -> WhisperEncoderConfig:
    return WhisperEncoderConfig(
        mel=whisper_log_mel(fields.number("num_mel_bins", 80)),
        layers=fields.number("encoder_layers", 4),
        width=fields.number("d_model", 384),
        heads=fields.number("encoder_attention_heads", 6),
        hidden=fields.number("encoder_ffn_dim", 1536),
        max_frames=fields.number("max_source_positions", 1500),
        layer_drop=fields.number("encoder_layerdrop", 0.0),
        **rates,
    )


def _decoder(fields: HubConfig, rates: Mapping[str, Any]) -> DecoderConfig:
    shape = whisper_decoder(
        vocabulary=fields.number("vocab_size", 51865),
        layers=fields.number("decoder_layers", 4),
        width=fields.number("d_model", 384),
        heads=fields.number("decoder_attention_heads", 6),
    )
    return shape.replace(
        hidden=fields.number("decoder_ffn_dim", 1536),
        max_positions=fields.number("max_target_positions", 448),
        tied_head=fields.flag("tie_word_embeddings", True),
        init_scale=fields.number("init_std", 0.02),
        **rates,
    )


def write_config(config: WhisperConfig) -> dict[str, Any]:
    """The `config.json` of our config."""
    encoder, decoder = config.encoder, config.decoder
    hub = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "is_encoder_decoder": True,
        "d_model": encoder.width,
        "num_mel_bins": encoder.mel.mels,
        "encoder_layers": encoder.layers,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.hidden,
        "encoder_layerdrop": encoder.layer_drop,
        "max_source_positions": encoder.max_frames,
        "vocab_size": decoder.vocabulary,
        "decoder_layers": decoder.layers,
        "decoder_attention_heads": decoder.heads,
        "decoder_ffn_dim": decoder.hidden,
        "max_target_positions": decoder.max_positions,
        "tie_word_embeddings": decoder.tied_head,
        "activation_function": HUB_ACTIVATIONS[decoder.activation],
        "dropout": decoder.dropout,
        "attention_dropout": decoder.attention_dropout,
        "activation_dropout": decoder.activation_dropout,
        "init_std": decoder.init_scale,
        "preprocessor_config": _features(encoder),
    }
    # how much of a window is heard is a way of running it; the two rates of the parts are one in the file
    require_said(
        "whisper",
        config,
        read_config(hub),
        (r"encoder\.(trim|mel_frames|cut|masks)", r"(en|de)coder\.(unroll|remat|dtype)"),
    )
    return hub


def table(config: WhisperConfig, spelling: str = "transformers") -> Table:
    """The names of one spelling."""
    names = NAMES[spelling]
    decoder, stack = names["decoder"], "decoder/blocks/layers"
    head = () if config.decoder.tied_head else (rule("proj_out.weight", "decoder/head_kernel", Dense()),)
    tokens = f"{decoder}.{names['tokens']}"
    return Table(
        rules=(
            *encoder_rules(names["encoder"], "encoder", spelling),
            rule(tokens, "decoder/tokens/embedding"),
            rule(f"{decoder}.{names['positions']}", "decoder/places/embedding"),
            *layer_rules(f"{decoder}.{names['layer']}", stack, names),
            *_attention(f"{decoder}.{names['layer']}", names["cross"], names["maps"], f"{stack}/cross"),
            *norm(f"{decoder}.{names['norms'][1]}", "decoder/final_norm"),
            *head,
        ),
        tied={"proj_out.weight": tokens} if config.decoder.tied_head and spelling == "transformers" else {},
        renames=((r"^(encoder|decoder)\.", r"model.\1."),) if spelling == "transformers" else (),
    )


def encoder_rules(source: str, target: str, spelling: str) -> tuple[Rule, ...]:
    """The rules of an encoder of Whisper's form below `source`, in the tree below `target`."""
    names, layers = NAMES[spelling], f"{target}/stack/layers"
    convs = (weights(f"{source}.conv{i + 1}", f"{target}/conv_{i}", Conv(), SAME) for i in range(2))
    return (
        *chain.from_iterable(convs),
        rule(f"{source}.{names['positions']}", f"{target}/positions"),
        *layer_rules(f"{source}.{names['layer']}", layers, names),
        *norm(f"{source}.{names['norms'][0]}", f"{target}/final_norm"),
    )


def layer_rules(source: str, target: str, names: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Self-attention and feed-forward block of a layer."""
    up, down, mlp_norm = names["mlp"]
    return (
        *_attention(source, names["attention"], names["maps"], f"{target}/attention"),
        *weights(f"{source}.{up}", f"{target}/mlp/up", Dense(), SAME),
        *weights(f"{source}.{down}", f"{target}/mlp/down", Dense(), SAME),
        *norm(f"{source}.{mlp_norm}", f"{target}/mlp_norm"),
    )


def _attention(source: str, own: tuple[str, str], maps: tuple[str, ...], target: str) -> tuple[Rule, ...]:
    """An attention and the norm before it: `.../attention` and `..._norm`, `.../cross_attention` and `cross_norm`."""
    attention, before = own
    at = f"{target}_attention" if target.endswith("cross") else target
    query, key, value, out = (f"{source}.{attention}.{name}" for name in maps)
    return (
        *weights(query, f"{at}/query", Dense(), FLAT),
        *weights(key, f"{at}/key", Dense()),
        *weights(value, f"{at}/value", Dense(), FLAT),
        *weights(out, f"{at}/out", Dense(2), SAME),
        *norm(f"{source}.{before}", f"{target}_norm"),
    )


def boxed_params(config: WhisperConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    samples, ids = jax.ShapeDtypeStruct((1, config.encoder.hop), jnp.float32), jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(Whisper(config).init, jax.random.key(0), samples, ids)["params"]


def boxed_encoder(config: WhisperEncoderConfig) -> Any:
    """Those of the encoder alone."""
    samples = jax.ShapeDtypeStruct((1, config.hop), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), samples)["params"]


def abstract_params(config: WhisperConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))


def _features(encoder: WhisperEncoderConfig) -> dict[str, Any]:
    """The file beside the config: how an encoder hears."""
    return {**FEATURES, "feature_size": encoder.mel.mels, "chunk_length": encoder.window / RATE_HZ}


def _check_features(fields: HubConfig, encoder: WhisperEncoderConfig) -> None:
    """The file beside the config must say what we compute; what else it says is left aside."""
    given = fields.get("preprocessor_config", {})
    for name, value in _features(encoder).items():
        found = given.get(name, value)
        fields.unless(found == value, f"preprocessor_config.{name}", found, f"only {value!r} is supported")


WHISPER = Family(
    name="whisper",
    config_type=WhisperConfig,
    spellings=("transformers", "openai"),
    matches=is_type("whisper"),
    read_config=read_config,
    write_config=write_config,
    table=table,
    abstract=abstract_params,
    boxed=boxed_params,
    side_files=("preprocessor_config",),
)
