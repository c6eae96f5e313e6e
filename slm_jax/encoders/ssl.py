"""The wav2vec 2.0 / HuBERT / WavLM family of self-supervised speech encoders."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import LogMelConfig
from slm_jax.audio.rates import SSL_CONVS, receptive_field
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.feature_extractor import (
    ConvLayers,
    LogMelFrontEnd,
    WaveformFrontEnd,
    log_mel_frame_count,
    normalise_rows,
    waveform_frame_count,
)
from slm_jax.encoders.output import EncoderOutput, hidden_states
from slm_jax.encoders.positional_conv import PositionalConv, PositionalConvConfig
from slm_jax.encoders.span_masks import SpanMasksConfig, with_hidden_spans
from slm_jax.encoders.ssl_layer import SSLLayer, bert_init
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.relative_bias import RelativeBias, RelativeBiasConfig
from slm_jax.nn.stack import Stack

BASE_CONVS: ConvLayers = ((512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2)


class SSLEncoderConfig(Config):
    """Shape of an encoder; the defaults are HuBERT-base. Presets: `encoders.ssl_presets`.

    `front_end`: "waveform" (`conv_layers` of (channels, kernel, stride) over samples) or "log_mel" (`mel`, then
    `conv_layers` with same padding; `mel_shift` and `mel_scale` standardise it). `extractor_norm`: "group" after the
    first convolution, or "layer" after each. `feature_norm`: LayerNorm before the projection to `width`.
    `normalise_waveform`: zero mean and unit variance per row, which must follow the checkpoint. `pre_norm`: the large
    models' order. `relative_bias`: WavLM's. `reference_padding`: group norm over padding as in the PyTorch models;
    False makes a padded row equal to the row alone. `feature_gradient`: factor on the gradient into the front end.
    `mask_embedding`: whether there is a vector for masked frames; some fine-tuned checkpoints have dropped it.
    `masks`: what training masks where no `span_mask` is given. `dropout` and its kin act in training only. `unroll`,
    `remat`: see `nn.stack`.
    """

    front_end: str = "waveform"
    conv_layers: ConvLayers = BASE_CONVS
    conv_bias: bool = False
    extractor_norm: str = "group"
    mel: LogMelConfig = LogMelConfig()
    mel_shift: float = 7.3
    mel_scale: float = 0.38
    normalise_waveform: bool = False
    feature_norm: bool = True
    feature_gradient: float = 1.0
    mask_embedding: bool = True
    masks: SpanMasksConfig | None = None
    position: PositionalConvConfig = PositionalConvConfig()
    relative_bias: RelativeBiasConfig | None = None
    pre_norm: bool = False
    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    feature_dropout: float = 0.0
    layer_drop: float = 0.0
    reference_padding: bool = False
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        known = ("waveform", "log_mel")
        require(self.front_end in known, "front_end", self.front_end, f"must be one of {', '.join(known)}")
        require(self.extractor_norm in ("group", "layer"), "extractor_norm", self.extractor_norm, "group or layer")
        well_formed = len(self.conv_layers) > 0 and all(len(c) == 3 and min(c) > 0 for c in self.conv_layers)
        require(well_formed, "conv_layers", self.conv_layers, "must be (channels, kernel, stride), ... all positive")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        divides = self.position.groups == 0 or self.width % self.position.groups == 0
        require(divides, "position.groups", self.position.groups, f"must divide the width {self.width}")
        for name in ("dropout", "attention_dropout", "activation_dropout", "feature_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        compute_dtype(self.dtype)

    def make(self) -> "SSLEncoder":
        """The module."""
        return SSLEncoder(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array); 49 for 16,000 in the published shapes."""
        if self.front_end == "log_mel":
            return log_mel_frame_count(n, self.conv_layers, self.mel)
        return waveform_frame_count(n, self.conv_layers)

    @property
    def frame_grid(self) -> tuple[tuple[int, int], ...]:
        """(kernel, stride) pairs that place the frames on the samples; a log-mel front end keeps HuBERT's."""
        if self.front_end == "log_mel":
            return SSL_CONVS
        return tuple((kernel, stride) for _, kernel, stride in self.conv_layers)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return receptive_field(self.frame_grid)[1]

    def labels_per_frame(self, label_hop: int) -> int:
        """How many labels `label_hop` samples apart come in the time of one frame.

        Raises `UserError` when it is no whole number.
        """
        rule = f"its frames are {self.hop} samples apart: a multiple of the labels' {label_hop} is needed"
        require(self.hop % label_hop == 0, "conv_layers", self.conv_layers, rule)
        return self.hop // label_hop


class SSLEncoder(nn.Module):
    """Samples at 16 kHz to frames at 50 Hz (other strides give other rates).

    Sources: Baevski et al. 2020 (wav2vec 2.0), Hsu et al. 2021 (HuBERT), Chen et al. 2022 (WavLM).
    """

    config: SSLEncoderConfig

    @nn.compact
    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        span_mask: Bool[Array, "B T"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Frames of right-padded rows.

        `layer` k stops after layer k (0: what the first layer reads) and gives its output as it is, as fairseq and
        `hidden_states[k]` of transformers do; None runs all layers and, with `pre_norm`, the final norm.
        `collect` fills `hidden`. Frames where `span_mask` holds are replaced by the learnt mask embedding.
        Training (`deterministic` False) needs the rng `dropout`. Raises `UserError` when N is too short for a frame.
        """
        c = self.config
        require(c.frame_count(samples.shape[1]) > 0, "samples", samples.shape, "shorter than one frame")
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        features, frame_mask = self._features(samples, mask)
        x = self._embedded(features, frame_mask, span_mask, deterministic)
        bias = RelativeBias(c.relative_bias, c.heads, name="relative_bias")(x.shape[1]) if c.relative_bias else None
        stack = Stack(_layer_maker(c), c.layers, unroll=c.unroll, remat=c.remat, name="stack")
        out = stack(x, None, (frame_mask, bias), collect=collect, depth=layer, deterministic=deterministic)
        final_norm = LayerNorm(dtype=x.dtype, name="final_norm") if c.pre_norm else lambda y: y
        values = final_norm(out.values) if layer is None else out.values
        return EncoderOutput(values, frame_mask, features, hidden_states(x, out.hidden) if collect else None)

    def _features(self, samples: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.config
        if c.normalise_waveform:
            samples = normalise_rows(samples, mask)
        features, frame_mask = self._front_end()(samples, mask)
        if c.feature_gradient != 1.0:
            kept = jax.lax.stop_gradient(features)
            features = kept + c.feature_gradient * (features - kept) if c.feature_gradient else kept
        return features, frame_mask

    def _front_end(self) -> WaveformFrontEnd | LogMelFrontEnd:
        c, dtype = self.config, compute_dtype(self.config.dtype)
        if c.front_end == "log_mel":
            return LogMelFrontEnd(c.conv_layers, c.mel, c.mel_shift, c.mel_scale, dtype, name="front_end")
        return WaveformFrontEnd(
            c.conv_layers, c.conv_bias, c.extractor_norm, c.reference_padding, dtype, name="front_end"
        )

    def _embedded(
        self, features: jax.Array, mask: jax.Array, span_mask: jax.Array | None, deterministic: bool
    ) -> Float[Array, "B T D"]:
        """What the first layer reads: projected, masked, with positions."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = LayerNorm(dtype=dtype, name="feature_norm")(features) if c.feature_norm else features
        project = Linear(c.width, out_names=("embed",), kernel_init=bert_init, dtype=dtype, name="feature_projection")
        x = nn.Dropout(c.feature_dropout, name="feature_dropout")(project(x), deterministic=deterministic)
        x = with_hidden_spans(self, x, mask, span_mask, deterministic)
        x = x + PositionalConv(c.position, dtype=dtype, name="position")(x, mask)
        if not c.pre_norm:
            x = LayerNorm(dtype=dtype, name="embedding_norm")(x)
        return nn.Dropout(c.dropout, name="dropout")(x, deterministic=deterministic)


def _layer_maker(config: SSLEncoderConfig) -> Callable[..., SSLLayer]:
    """A function of `name` that makes a layer. Not a method: Flax would make the method's module the parent."""
    return partial(
        SSLLayer,
        heads=config.heads,
        hidden=config.hidden,
        pre_norm=config.pre_norm,
        gated_by=None if config.relative_bias is None else "input",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        layer_drop=config.layer_drop,
        dtype=compute_dtype(config.dtype),
    )
