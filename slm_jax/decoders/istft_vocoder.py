"""The fast generator: blocks at low frame rates, then an inverse STFT instead of many transposed convolutions.

Source: Vocos (Siuzdak 2023) and iSTFTNet (Kaneko et al. 2022) for the head; ConvNeXt blocks as in Vocos. With
`excitation="harmonic"` the head filters a harmonic-plus-noise source (`decoders.excitation`) instead of making every
phase itself: far fewer training steps to intelligible speech, at the price of needing F0.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.stft import clipped, frame, overlap_add, polar, window_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.decoders.excitation import harmonics, noise
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.nn.convnext import ConvNeXt
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import LayerNorm


class ISTFTVocoderConfig(Config):
    """Stages of ConvNeXt blocks: `blocks[0]` of width `widths[0]` at the input's rate, then for every entry of
    `upsample` the rate times it and the next stage. `n_fft` and `istft_hop` in samples at the output.

    `excitation`: "none" (magnitude and phase of every bin) or "harmonic" (filters over harmonics of F0 and noise).
    """

    widths: tuple[int, ...] = (192, 96)
    blocks: tuple[int, ...] = (4, 2)
    upsample: tuple[int, ...] = (4,)
    kernel: int = 7
    expansion: int = 2
    n_fft: int = 320
    istft_hop: int = 80
    excitation: str = "harmonic"
    rate_hz: int = 16_000
    dtype: str = "float32"

    def __post_init__(self) -> None:
        stages = len(self.upsample) + 1
        require(len(self.widths) == stages, "widths", self.widths, f"one for each of the {stages} stages")
        require(len(self.blocks) == stages, "blocks", self.blocks, f"one for each of the {stages} stages")
        fits = self.n_fft >= self.istft_hop and (self.n_fft - self.istft_hop) % 2 == 0
        require(fits, "n_fft", self.n_fft, f"istft_hop {self.istft_hop} plus an even number")
        require(self.excitation in ("none", "harmonic"), "excitation", self.excitation, "none or harmonic")

    @property
    def hop(self) -> int:
        """Samples per input frame."""
        return math.prod(self.upsample) * self.istft_hop

    @property
    def reads_pitch(self) -> bool:
        """Whether the generator itself needs F0."""
        return self.excitation == "harmonic"

    def make(self) -> "ISTFTVocoder":
        """The module."""
        return ISTFTVocoder(self)


class ISTFTVocoder(nn.Module):
    """Features to a waveform, `hop` samples per frame."""

    config: ISTFTVocoderConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None = None,
        *,
        f0_hz: Float[Array, "B T"] | None = None,
        voiced: Bool[Array, "B T"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "B N"]:
        """N = T hop samples, zero beyond the real frames. `key` draws the noise (a fixed one when None)."""
        c, given = self.config, mask
        dtype = compute_dtype(c.dtype)
        x = Conv1d(c.widths[0], 7, dtype=dtype, name="conv_in")(features, mask)
        x = LayerNorm(dtype=dtype, name="norm_in")(x)
        for stage, width in enumerate(c.widths):
            if stage > 0:
                factor = c.upsample[stage - 1]
                x = Linear(factor * width, ("conv_in",), ("conv_out",), dtype=dtype, name=f"up_{stage}")(x)
                x = x.reshape(x.shape[0], -1, width)
                mask = None if mask is None else jnp.repeat(mask, factor, axis=1)
            for block in range(c.blocks[stage]):
                how = {"activation": "gelu_tanh", "dtype": dtype, "name": f"stage_{stage}_block_{block}"}
                x = ConvNeXt(width, c.expansion * width, c.kernel, **how)(x, mask)
        x = LayerNorm(dtype=dtype, name="norm_out")(x)
        bins, parts = c.n_fft // 2 + 1, 3 if c.reads_pitch else 2
        out = Linear((parts, bins), ("conv_in",), (None, "conv_out"), dtype=dtype, name="head")(x).astype(jnp.float32)
        if not c.reads_pitch:
            spectra = polar(out[..., 0, :], out[..., 1, :])
        else:
            require(
                f0_hz is not None and voiced is not None, "f0_hz", None, "a harmonic excitation needs F0 and voicing"
            )
            tone, hiss = self._excitation(f0_hz, voiced, given, key)
            spectra = polar(out[..., 0, :], out[..., 1, :]) * tone + jnp.exp(clipped(out[..., 2, :])) * hiss
        return synthesised(spectra, mask, c.n_fft, c.istft_hop)

    def _excitation(
        self, f0_hz: jax.Array, voiced: jax.Array, mask: jax.Array | None, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The spectra of the harmonics and of the noise; a row ends with its last real frame."""
        c = self.config
        if mask is not None:
            f0_hz, voiced = (held_at_end(track, mask) for track in (f0_hz, voiced))
        tone = harmonics(f0_hz, voiced, c.hop, c.rate_hz)
        hiss = noise(jax.random.key(0) if key is None else key, tone.shape[1])
        if mask is not None:
            real = jnp.repeat(mask, c.hop, axis=1)
            tone, hiss = jnp.where(real, tone, 0.0), jnp.where(real, hiss, 0.0)
        return analysed(tone, c.n_fft, c.istft_hop), analysed(hiss, c.n_fft, c.istft_hop)


def held_at_end(track: Array, mask: Bool[Array, "B T"]) -> Array:
    """`track [B, T]` with every row's last real value in its padding."""
    last = jnp.maximum(mask.sum(-1, keepdims=True) - 1, 0)
    return jnp.take_along_axis(track, jnp.minimum(jnp.arange(track.shape[1]), last), axis=1)


def analysed(samples: Float[Array, "B N"], n_fft: int, hop: int) -> jax.Array:
    """Spectra of N / hop frames, each centred on its own `hop` samples; silence beyond the ends."""
    side = (n_fft - hop) // 2
    frames = frame(jnp.pad(samples, ((0, 0), (side, side))), n_fft, hop)
    return jnp.fft.rfft(frames * jnp.asarray(window_of("hann", n_fft), jnp.float32))


def synthesised(spectra: jax.Array, mask: Bool[Array, "B T"] | None, n_fft: int, hop: int) -> Float[Array, "B N"]:
    """The inverse of `analysed`. Frames where `mask` is False count for nothing, not even in the windows' sum."""
    window = jnp.asarray(window_of("hann", n_fft), jnp.float32)
    real = jnp.ones((1, spectra.shape[1]), bool) if mask is None else mask
    frames = zero_padded(jnp.fft.irfft(spectra, n_fft) * window, None if mask is None else mask)
    cover = overlap_add(jnp.where(real[..., None], window**2, 0.0), hop)
    side, size = (n_fft - hop) // 2, spectra.shape[1] * hop
    samples = overlap_add(frames, hop) / jnp.maximum(cover, 1e-3)
    samples = samples[:, side : side + size]
    return samples if mask is None else jnp.where(jnp.repeat(mask, hop, axis=1), samples, 0.0)
