"""Rate arithmetic: how many frames come out of so many samples, and which of them are real.

Counts work on Python integers, NumPy and JAX arrays alike.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

AnyArray = Array | np.ndarray

SSL_CONVS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
"""(kernel, stride) of the wav2vec 2.0 / HuBERT / WavLM front end: 400 samples every 320, 50 Hz at 16 kHz."""


def frame_count(n: Any, window: int, hop: int) -> Any:
    """Frames of `window` samples every `hop` that fit whole into `n` samples (Kaldi's `snip_edges`)."""
    return _at_least_zero((n - window) // hop + 1)


def centred_frame_count(n: Any, hop: int) -> Any:
    """Frames centred on samples 0, hop, 2 hop, ... of `n` samples."""
    return n // hop + 1


def conv_frames(n: Any, kernels_and_strides: Sequence[tuple[int, int]]) -> Any:
    """Frames left of `n` samples after convolutions without padding, (kernel, stride) each."""
    for kernel, stride in kernels_and_strides:
        n = frame_count(n, kernel, stride)
    return n


def receptive_field(kernels_and_strides: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Samples that one output frame sees, and samples from one frame to the next: (400, 320) for `SSL_CONVS`."""
    field, step = 1, 1
    for kernel, stride in kernels_and_strides:
        field += (kernel - 1) * step
        step *= stride
    return field, step


def frame_centres_s(frames: int, hop: int, rate_hz: float | int, window: int = 0) -> Float[np.ndarray, "T"]:
    """Time (seconds) of the middle of each frame, when frame t covers `window` samples from sample t * hop."""
    return (np.arange(frames) * hop + window / 2) / rate_hz


def lengths_of(mask: Bool[AnyArray, "B T"]) -> Int[AnyArray, "B"]:
    """Number of real entries of each right-padded row."""
    return mask.sum(axis=1)


def mask_of(lengths: Int[AnyArray, "B"], size: int) -> Bool[Array, "B T"]:
    """True for the first `lengths` of `size` entries of each row."""
    return jnp.arange(size)[None, :] < jnp.asarray(lengths)[:, None]


def _at_least_zero(count: Any) -> Any:
    if isinstance(count, int | np.integer):
        return max(count, 0)
    return jnp.maximum(count, 0) if isinstance(count, jax.Array) else np.maximum(count, 0)
