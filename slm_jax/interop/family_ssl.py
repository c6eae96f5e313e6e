"""wav2vec 2.0, HuBERT and WavLM: their configs; the names of their weights are in `interop.ssl_names`.

A checkpoint of fairseq needs a `config.json` in transformers' form beside it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.core.contracts import EncoderConfig
from slm_jax.encoders.feature_extractor import ConvLayers
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import BASE_CONVS, SSLEncoderConfig
from slm_jax.interop.family import Family
from slm_jax.interop.hub_config import Hub, HubConfig, is_type, require_said
from slm_jax.interop.ssl_names import table
from slm_jax.nn.relative_bias import RelativeBiasConfig

CLASSES = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}
FIXED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "layer_norm_eps": (1e-5,),
    "conv_pos_batch_norm": (False,),
    "add_adapter": (False,),
    "adapter_attn_dim": (),
}
ANY_VALUE = (
    # heads and their losses, which are no part of an encoder
    *("vocab_size", "final_dropout", "classifier_proj_size", "use_weighted_layer_sum", "ctc_loss_reduction"),
    *("ctc_zero_infinity", "num_ctc_classes", "tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim"),
    *("num_codevectors_per_group", "num_codevector_groups", "contrastive_logits_temperature", "num_negatives"),
    *("codevector_dim", "proj_codevector_dim", "diversity_loss_weight", "feat_quantizer_dropout"),
    # shape of an adapter that is not there (`add_adapter` must be false)
    *("adapter_kernel_size", "adapter_stride", "num_adapter_layers", "output_hidden_size"),
    # how weights were drawn, and what was masked in training: both are settings of stages here
    *("initializer_range", "apply_spec_augment", "mask_time_length", "mask_time_min_masks", "mask_feature_length"),
    *("mask_feature_min_masks", "freeze_feat_extract_train", "no_mask_channel_overlap", "no_mask_time_overlap"),
    *("mask_channel_length", "mask_channel_min_space", "mask_channel_other", "mask_channel_prob"),
    *("mask_channel_selection", "mask_time_min_space", "mask_time_other", "mask_time_selection"),
    "gradient_checkpointing",
)
"""Fields that change nothing an encoder computes from samples, whatever they hold."""
PREPROCESSOR: dict[str, tuple] = {
    "feature_extractor_type": ("Wav2Vec2FeatureExtractor",),
    "processor_class": ("Wav2Vec2Processor", "Wav2Vec2ProcessorWithLM"),
    "feature_size": (1,),
    "sampling_rate": (16_000,),
    "padding_side": ("right",),
    "padding_value": (0, 0.0),
    "return_attention_mask": (False, True),  # ours always knows which samples are real
}
"""`preprocessor_config.json` beside `do_normalize`: field -> what it may hold."""


def reader(family: str) -> Callable[[Hub], SSLEncoderConfig]:
    """`read_config` of one family.

    Without a `preprocessor_config.json` the waveform is taken as it is, as the model alone would.
    """

    def read_config(hub: Hub) -> SSLEncoderConfig:
        fields = HubConfig(family, hub, FIXED)
        fields.read |= set(ANY_VALUE)
        extractor_norm = str(fields.get("feat_extract_norm", "group"))
        fields.unless(extractor_norm in ("group", "layer"), "feat_extract_norm", extractor_norm, "group or layer")
        # transformers makes the vector only where something may be masked
        masked = max(fields.number("mask_time_prob", 0.05), fields.number("mask_feature_prob", 0.0)) > 0
        return fields.make(
            SSLEncoderConfig,
            conv_layers=_conv_layers(fields),
            conv_bias=fields.flag("conv_bias", False),
            extractor_norm=extractor_norm,
            normalise_waveform=_normalises(fields),
            feature_norm=fields.flag("feat_proj_layer_norm", True) if family == "hubert" else True,
            mask_embedding=masked,
            position=PositionalConvConfig(
                kernel=fields.number("num_conv_pos_embeddings", 128),
                groups=fields.number("num_conv_pos_embedding_groups", 16),
            ),
            relative_bias=_relative_bias(fields) if family == "wavlm" else None,
            pre_norm=fields.flag("do_stable_layer_norm", False),
            layers=fields.number("num_hidden_layers", 12),
            width=fields.number("hidden_size", 768),
            heads=fields.number("num_attention_heads", 12),
            hidden=fields.number("intermediate_size", 3072),
            dropout=fields.number("hidden_dropout", 0.1),
            attention_dropout=fields.number("attention_dropout", 0.1),
            activation_dropout=fields.number("activation_dropout", 0.1),
            feature_dropout=fields.number("feat_proj_dropout", 0.0),
            layer_drop=fields.number("layerdrop", 0.1),
        )

    return read_config


def writer(family: str) -> Callable[[SSLEncoderConfig], dict[str, Any]]:
    """`write_config` of one family."""
    read_config = reader(family)

    def write_config(config: SSLEncoderConfig) -> dict[str, Any]:
        channels, kernels, strides = (list(column) for column in zip(*config.conv_layers, strict=True))
        position, bias = config.position, config.relative_bias
        groups = position.groups or config.width
        hub = {
            "model_type": family,
            "architectures": [f"{CLASSES[family]}Model"],
            "conv_dim": channels,
            "conv_kernel": kernels,
            "conv_stride": strides,
            "num_feat_extract_layers": len(channels),
            "conv_bias": config.conv_bias,
            "feat_extract_norm": config.extractor_norm,
            "num_conv_pos_embeddings": position.kernel,
            "num_conv_pos_embedding_groups": groups,
            "do_stable_layer_norm": config.pre_norm,
            "num_hidden_layers": config.layers,
            "hidden_size": config.width,
            "num_attention_heads": config.heads,
            "intermediate_size": config.hidden,
            "hidden_dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": config.activation_dropout,
            "feat_proj_dropout": config.feature_dropout,
            "layerdrop": config.layer_drop,
            "mask_time_prob": 0.05 if config.mask_embedding else 0.0,
            "preprocessor_config": _preprocessor(config),
        }
        if family == "hubert":
            hub["feat_proj_layer_norm"] = config.feature_norm
        if family == "wavlm" and bias is not None:
            hub |= {"num_buckets": bias.buckets, "max_bucket_distance": bias.max_distance}
        # of no consequence: how the positional convolution is computed, what padding and training do, and the
        # settings of the other front end, which would itself be named
        unsaid = ("position.form", "reference_padding", "feature_gradient", "masks", "mel", "mel_shift", "mel_scale")
        plain = config.replace(position=position.replace(groups=groups))
        require_said(family, plain, read_config(hub), unsaid)
        return hub

    return write_config


def boxed_params(config: EncoderConfig) -> Any:
    """Shapes and dtypes of the encoder's parameters with their logical axes; nothing is computed."""
    samples = 1
    while config.frame_count(samples) < 1:  # whatever the front end is
        samples *= 2
    one_frame = jax.ShapeDtypeStruct((1, samples), jnp.float32)
    return jax.eval_shape(config.make().init, jax.random.key(0), one_frame)["params"]


def abstract_params(config: EncoderConfig) -> Any:
    """Shapes and dtypes of the encoder's parameters."""
    return meta.unbox(boxed_params(config))


def _conv_layers(fields: HubConfig) -> ConvLayers:
    """(channels, kernel, stride) of each convolution, which the file keeps in three lists."""
    published = zip(("conv_dim", "conv_kernel", "conv_stride"), zip(*BASE_CONVS, strict=True), strict=True)
    columns = [fields.numbers(name, default) for name, default in published]
    count = fields.number("num_feat_extract_layers", len(columns[0]))
    fields.unless({len(c) for c in columns} == {count}, "conv_dim", columns[0], f"needs {count} kernels and strides")
    return tuple(zip(*columns, strict=False))


def _relative_bias(fields: HubConfig) -> RelativeBiasConfig:
    buckets, distance = fields.number("num_buckets", 320), fields.number("max_bucket_distance", 800)
    return RelativeBiasConfig(buckets=buckets, max_distance=distance)


def _normalises(fields: HubConfig) -> bool:
    """Whether samples are brought to zero mean and unit variance, told by the file beside the config."""
    given = fields.get("preprocessor_config", {})
    for name, value in given.items():
        if name == "do_normalize":
            fields.unless(isinstance(value, bool), f"preprocessor_config.{name}", value, "must be true or false")
        elif value is not None:
            allowed = PREPROCESSOR.get(name, ())
            rule = f"only {' or '.join(map(repr, allowed))} is supported" if allowed else "this field is not supported"
            fields.unless(value in allowed, f"preprocessor_config.{name}", value, rule)
    # the default of the class that reads this file, once there is one
    return bool(given.get("do_normalize", bool(given)))


def _preprocessor(config: SSLEncoderConfig) -> dict[str, Any]:
    """Padding without an attention mask is how group-norm models were trained."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16_000,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": config.normalise_waveform,
        "return_attention_mask": config.extractor_norm == "layer",
    }


def _family(name: str) -> Family:
    return Family(
        name=name,
        config_type=SSLEncoderConfig,
        spellings=("transformers", "fairseq"),
        matches=is_type(name),
        read_config=reader(name),
        write_config=writer(name),
        table=table,
        abstract=abstract_params,
        boxed=boxed_params,
        side_files=("preprocessor_config",),
    )


HUBERT, WAV2VEC2, WAVLM = (_family(name) for name in ("hubert", "wav2vec2", "wavlm"))
