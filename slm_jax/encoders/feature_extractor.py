"""The two front ends of the self-supervised encoders: convolutions over samples, or over a log-mel spectrogram.

Both give frame t of a row from samples near 320 t alone, and `floor((n - 400) / 320) + 1` frames for n samples in
their usual settings, so that units of either line up.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import LogMelConfig
from slm_jax.audio.rates import conv_frames
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import GroupNorm, LayerNorm
from slm_jax.nn.recompute import recomputed

ConvLayers = tuple[tuple[int, int, int], ...]
"""(channels, kernel, stride) of each convolution."""

NORMALISE_EPSILON = 1e-7  # what transformers' Wav2Vec2FeatureExtractor adds; fairseq adds 1e-5
he_normal = nn.initializers.he_normal()


def normalise_rows(samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Float[Array, "B N"]:
    """Each row with zero mean and unit variance over its real samples; padding becomes zero."""
    count = jnp.maximum(mask.sum(-1, keepdims=True), 1)
    samples = jnp.where(mask, samples, 0.0)
    centred = jnp.where(mask, samples - samples.sum(-1, keepdims=True) / count, 0.0)
    variance = jnp.square(centred).sum(-1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + NORMALISE_EPSILON)


class WaveformFrontEnd(nn.Module):
    """wav2vec 2.0's feature extractor (Baevski et al. 2020): convolutions without padding, exact GELU.

    `norm`: "group" normalises every channel over time after the first convolution, "layer" every frame after each.
    Group-norm statistics are those of the real frames, so that a padded row gives what it gives alone;
    `reference_padding` takes them over the padding too, as the PyTorch models do.
    """

    conv_layers: ConvLayers
    use_bias: bool
    norm: str
    reference_padding: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> tuple[Float[Array, "B T C"], Bool[Array, "B T"]]:
        x = samples[..., None].astype(self.dtype)
        for i, (channels, kernel, stride) in enumerate(self.conv_layers):
            conv = Conv1d(
                channels,
                kernel,
                stride,
                padding="valid",
                use_bias=self.use_bias,
                kernel_init=he_normal,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            x = conv(x) if self.reference_padding else conv(x, mask)
            mask = conv.mask_out(mask)
            # The gradient keeps the convolution's output, not what norm and GELU make on their way: several times as
            # much, in float32, at the first and longest layers.
            x = recomputed(WaveformFrontEnd._activated, self, x, mask, i)
        return x, mask

    def _activated(self, x: Float[Array, "B T C"], mask: Bool[Array, "B T"], i: int) -> Float[Array, "B T C"]:
        return activation("gelu")(self._normalised(x, mask, i))

    def _normalised(self, x: Float[Array, "B T C"], mask: Bool[Array, "B T"], i: int) -> Float[Array, "B T C"]:
        if self.norm == "layer":
            return LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
        if i > 0:
            return x
        group_norm = GroupNorm(x.shape[-1], dtype=self.dtype, name=f"norm_{i}")
        return group_norm(x, None if self.reference_padding else mask)


class LogMelFrontEnd(nn.Module):
    """Log-mel frames every 10 ms, shifted and scaled by constants, then same-padded convolutions down to 50 Hz.

    With kernels 3 and strides (1, 2) output t is centred on mel frame 2 t. Learns much faster than a waveform front
    end from little data. The constants bring natural-log magnitudes of speech near zero mean and unit variance.
    """

    conv_layers: ConvLayers
    mel: LogMelConfig
    shift: float
    scale: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> tuple[Float[Array, "B T C"], Bool[Array, "B T"]]:
        mel = self.mel.make().frames(samples, mask)
        x, mask = (mel.values + self.shift) * self.scale, mel.mask
        for i, (channels, kernel, stride) in enumerate(self.conv_layers):
            conv = Conv1d(channels, kernel, stride, kernel_init=he_normal, dtype=self.dtype, name=f"conv_{i}")
            x, mask = activation("gelu")(conv(x, mask)), conv.mask_out(mask)
        return x, mask


def waveform_frame_count(n: Any, conv_layers: ConvLayers) -> Any:
    """Frames that `WaveformFrontEnd` makes of `n` samples (integer or integer array)."""
    return conv_frames(n, [(kernel, stride) for _, kernel, stride in conv_layers])


def log_mel_frame_count(n: Any, conv_layers: ConvLayers, mel: LogMelConfig) -> Any:
    """Frames that `LogMelFrontEnd` makes of `n` samples (integer or integer array)."""
    frames = mel.make().frame_count(n)
    for _, _, stride in conv_layers:
        frames = -(-frames // stride)
    return frames
