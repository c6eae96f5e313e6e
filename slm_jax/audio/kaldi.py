"""Kaldi's filter bank and MFCC, and HuBERT's 39 numbers per frame (MFCC with deltas).

Frames are 25 ms every 10 ms, whole ones only: frame t covers samples from t * hop, so a padded row gives what it
gives alone. Dither is off. Samples are in [-1, 1] unless `scale` says otherwise (Kaldi itself reads int16 values).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.audio.mel import mel_filterbank
from slm_jax.audio.rates import AnyArray, frame_count, lengths_of, mask_of
from slm_jax.audio.stft import frame, window_of
from slm_jax.core.types import Frames

ENERGY_FLOOR = float(np.finfo(np.float32).eps)
PRE_EMPHASIS = 0.97
LIFTER = 22.0
DELTA_REACH = 2


@partial(jax.jit, static_argnames=("rate_hz", "mels", "low_hz", "high_hz", "scale"))
def kaldi_fbank(
    samples: Float[AnyArray, "B N"],
    rate_hz: int = 16_000,
    mels: int = 80,
    *,
    low_hz: float | int = 20.0,
    high_hz: float | int | None = None,
    scale: float | int = 1.0,
) -> Float[Array, "B T M"]:
    """ln mel energies, T = (N - 0.025 rate) // (0.010 rate) + 1; `scale` multiplies the samples (32768 for Kaldi)."""
    window, hop = rate_hz // 40, rate_hz // 100
    n_fft = 1 << (window - 1).bit_length()
    samples = jnp.asarray(samples)
    frames = frame(samples.astype(jnp.promote_types(samples.dtype, jnp.float32)) * scale, window, hop)
    frames = frames - frames.mean(axis=-1, keepdims=True)
    before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
    weighted = (frames - PRE_EMPHASIS * before) * jnp.asarray(window_of("povey", window), frames.dtype)
    spectra = jnp.fft.rfft(weighted, n_fft)
    filters = mel_filterbank(mels, n_fft, rate_hz, low_hz, high_hz, "kaldi", frames.dtype)
    energies = (spectra.real**2 + spectra.imag**2) @ filters
    return jnp.log(jnp.maximum(energies, ENERGY_FLOOR))


@partial(jax.jit, static_argnames=("rate_hz", "coefficients", "mels", "scale"))
def kaldi_mfcc(
    samples: Float[AnyArray, "B N"],
    rate_hz: int = 16_000,
    coefficients: int = 13,
    mels: int = 23,
    scale: float | int = 1.0,
) -> Float[Array, "B T C"]:
    """Mel cepstra, liftered, the zeroth from the cosine transform (`use_energy` off, as HuBERT's MFCC)."""
    basis = jnp.asarray(_cosine_basis(mels, coefficients) * _lifter(coefficients), jnp.float32)
    return kaldi_fbank(samples, rate_hz, mels, scale=scale) @ basis


def mfcc(
    samples: Float[AnyArray, "B N"], mask: Bool[AnyArray, "B N"] | None = None, rate_hz: int = 16_000
) -> Float[Array, "B T 39"]:
    """13 MFCC, their deltas and the deltas of those, every 10 ms: targets of HuBERT's first iteration.

    Frames beyond a row's end are zero when a mask is given; `mfcc_frames` also returns which ones.
    """
    return mfcc_frames(samples, mask, rate_hz).values


@partial(jax.jit, static_argnames="rate_hz")
def mfcc_frames(
    samples: Float[AnyArray, "B N"], mask: Bool[AnyArray, "B N"] | None = None, rate_hz: int = 16_000
) -> Frames:
    """`mfcc` with the mask of its frames: each real frame is what the row gives alone."""
    cepstra = kaldi_mfcc(samples, rate_hz)
    count = cepstra.shape[1]
    if mask is None:
        lengths = jnp.full(cepstra.shape[0], count)
    else:
        lengths = frame_count(jnp.asarray(lengths_of(mask)), rate_hz // 40, rate_hz // 100)
    first = deltas(cepstra, lengths)
    kept = mask_of(lengths, count)
    values = jnp.concatenate([cepstra, first, deltas(first, lengths)], axis=-1)
    return Frames(jnp.where(kept[..., None], values, 0.0), kept)


def deltas(values: Float[Array, "B T D"], lengths: Int[Array, "B"]) -> Float[Array, "B T D"]:
    """Slopes over two frames on each side; a row's own first and last frames are repeated beyond its ends."""
    time = jnp.arange(values.shape[1])

    def moved(by: int) -> jax.Array:
        index = jnp.clip(time + by, 0, jnp.maximum(lengths[:, None] - 1, 0))
        return jnp.take_along_axis(values, index[..., None], axis=1)

    reaches = range(1, DELTA_REACH + 1)
    slopes = jnp.stack([reach * (moved(reach) - moved(-reach)) for reach in reaches]).sum(axis=0)
    return slopes / (2 * sum(reach**2 for reach in reaches))


def at_50_hz(values: Float[AnyArray, "B T D"], mean: bool = False) -> Float[AnyArray, "B U D"]:
    """Frames of 10 ms on the 50 Hz grid of HuBERT: U = (N - 400) // 320 + 1 at 16 kHz.

    Frame u covers samples from 320 u, as frame 2 u of `values` does: that one is taken (HuBERT's way of matching
    100 Hz labels), or with `mean` the mean of frames 2 u and 2 u + 1 (the last one alone where there is no other).
    """
    even = values[:, ::2]
    if not mean:
        return even
    odd = values[:, 1::2]
    paired = odd.shape[1]
    both = (even[:, :paired] + odd) / 2
    return jnp.concatenate([both, even[:, paired:]], axis=1) if even.shape[1] > paired else both


def _cosine_basis(mels: int, coefficients: int) -> Float[np.ndarray, "M C"]:
    """Orthonormal DCT-II."""
    basis = np.cos(np.pi / mels * (np.arange(mels)[:, None] + 0.5) * np.arange(coefficients)) * np.sqrt(2 / mels)
    basis[:, 0] = np.sqrt(1 / mels)
    return basis


def _lifter(coefficients: int) -> Float[np.ndarray, "C"]:
    return 1.0 + 0.5 * LIFTER * np.sin(np.pi * np.arange(coefficients) / LIFTER)
