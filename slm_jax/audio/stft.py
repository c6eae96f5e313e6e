"""Short-time Fourier transform, its exact inverse, and Griffin-Lim, for batches under jit.

Frames are cut and added back in chunks of one hop (slices and concatenation instead of gather and scatter), which
keeps both directions and their gradients cheap on every backend.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from slm_jax.core.errors import require

AnyArray = Array | np.ndarray
MAX_LOG_MAGNITUDE = math.log(100.0)


def window_of(name: str, length: int) -> Float[np.ndarray, "W"]:
    """A window of `length` samples: `hann` (periodic), `hann_symmetric`, `povey` (Kaldi) or `ones`."""
    angles = 2 * np.pi * np.arange(length)
    if name == "hann":
        return 0.5 - 0.5 * np.cos(angles / length)
    if name == "hann_symmetric":
        return 0.5 - 0.5 * np.cos(angles / (length - 1))
    if name == "povey":
        return (0.5 - 0.5 * np.cos(angles / (length - 1))) ** 0.85
    require(name == "ones", "window", name, "one of hann, hann_symmetric, povey, ones")
    return np.ones(length)


@partial(jax.jit, static_argnames=("window", "hop"))
def frame(samples: Float[AnyArray, "B N"], window: int, hop: int) -> Float[Array, "B T W"]:
    """Frames of `window` samples every `hop`, whole ones only: T = (N - W) // hop + 1 (0 when N < W)."""
    samples = jnp.asarray(samples)
    count, chunks_per_frame = max(0, (samples.shape[1] - window) // hop + 1), -(-window // hop)
    if count == 0:
        return jnp.zeros((samples.shape[0], 0, window), samples.dtype)
    total = (count - 1 + chunks_per_frame) * hop
    padded = jnp.pad(samples, ((0, 0), (0, max(0, total - samples.shape[1]))))[:, :total]
    chunks = padded.reshape(samples.shape[0], -1, hop)
    frames = jnp.concatenate([chunks[:, i : i + count] for i in range(chunks_per_frame)], axis=-1)
    return frames[..., :window]


@partial(jax.jit, static_argnames="hop")
def overlap_add(frames: Float[AnyArray, "B T W"], hop: int) -> Float[Array, "B N"]:
    """The sum of frames placed `hop` samples apart: N = (T - 1) * hop + W. The transpose of `frame`."""
    frames = jnp.asarray(frames)
    batch, count, window = frames.shape
    per_frame = -(-window // hop)
    chunks = jnp.pad(frames, ((0, 0), (0, 0), (0, per_frame * hop - window))).reshape(batch, count, per_frame, hop)
    placed = [jnp.pad(chunks[:, :, i], ((0, 0), (i, per_frame - 1 - i), (0, 0))) for i in range(per_frame)]
    return sum(placed[1:], placed[0]).reshape(batch, -1)[:, : (count - 1) * hop + window]


@partial(jax.jit, static_argnames=("left", "right"))
def pad_reflected(
    samples: Float[AnyArray, "B N"], left: int, right: int, mask: Bool[AnyArray, "B N"] | None = None
) -> Float[Array, "B N2"]:
    """Samples mirrored at both ends (the end sample is not repeated); N2 = left + N + right.

    With a mask every row is mirrored at its own last real sample and is zero beyond, so that a padded row gives
    what it gives alone. Rows shorter than the mirror are mirrored to and fro.
    """
    samples = jnp.asarray(samples)
    size = samples.shape[1]
    if mask is None:
        return jnp.pad(samples, ((0, 0), (left, right)), mode="reflect")
    lengths = jnp.asarray(mask).sum(1, keepdims=True)
    position = jnp.arange(-left, size + right)[None, :]
    period = jnp.maximum(2 * (lengths - 1), 1)
    around = position % period
    mirrored = jnp.take_along_axis(samples, jnp.minimum(around, period - around) % size, axis=1)
    return jnp.where(position < lengths + right, mirrored, 0.0)


@partial(jax.jit, static_argnames=("n_fft", "hop", "window_length", "window", "centre"))
def stft(
    samples: Float[AnyArray, "B N"],
    n_fft: int,
    hop: int,
    window_length: int | None = None,
    *,
    window: str = "hann",
    centre: bool = True,
    mask: Bool[AnyArray, "B N"] | None = None,
) -> Complex[Array, "B T F"]:
    """Complex spectra, F = n_fft // 2 + 1 (`torch.stft`, transposed).

    Centred: frame t is around sample t * hop, the ends are mirrored (per row when a mask is given), T = N // hop + 1.
    Otherwise frame t begins at sample t * hop and T = (N - n_fft) // hop + 1.
    """
    if centre:
        samples = pad_reflected(samples, n_fft // 2, n_fft // 2, mask)
    shape = _centred_window(window, window_length or n_fft, n_fft, samples.dtype)
    return jnp.fft.rfft(frame(samples, n_fft, hop) * shape)


@partial(jax.jit, static_argnames=("n_fft", "hop", "window_length", "window", "centre", "length"))
def istft(
    spectra: Complex[AnyArray, "B T F"],
    n_fft: int,
    hop: int,
    window_length: int | None = None,
    *,
    window: str = "hann",
    centre: bool = True,
    length: int | None = None,
) -> Float[Array, "B N"]:
    """The samples whose `stft` is nearest to `spectra`: exact for spectra that `stft` made.

    `length`: samples to return; by default (T - 1) * hop when centred and (T - 1) * hop + n_fft otherwise. Samples
    that no window covers (and those beyond the last frame) are zero.
    """
    pieces = jnp.fft.irfft(jnp.asarray(spectra), n_fft)
    weights = _centred_window(window, window_length or n_fft, n_fft, pieces.dtype)
    samples = overlap_add(pieces * weights, hop)
    cover = overlap_add(jnp.broadcast_to(weights**2, (1, spectra.shape[1], n_fft)), hop)
    samples = jnp.where(cover > 1e-8, samples / jnp.maximum(cover, 1e-8), 0.0)
    if centre:
        samples = samples[:, n_fft // 2 :]
    wanted = length if length is not None else (spectra.shape[1] - 1) * hop + (0 if centre else n_fft)
    return jnp.pad(samples, ((0, 0), (0, max(0, wanted - samples.shape[1]))))[:, :wanted]


@partial(jax.jit, static_argnames=("n_fft", "hop", "window_length", "iterations", "momentum", "length"))
def griffin_lim(
    magnitudes: Float[Array, "B T F"],
    key: jax.Array,
    n_fft: int,
    hop: int,
    window_length: int | None = None,
    *,
    iterations: int = 60,
    momentum: float | int = 0.99,
    length: int | None = None,
) -> Float[Array, "B N"]:
    """Samples for magnitude spectra without phase; `key` draws the first phases.

    The fast form of Perraudin et al. 2013 (momentum 0: Griffin and Lim 1984).
    """
    samples_of = partial(istft, n_fft=n_fft, hop=hop, window_length=window_length, length=length)
    size = length if length is not None else (magnitudes.shape[1] - 1) * hop
    pull = momentum / (1 + momentum)

    def improve(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        phases, before = state
        rebuilt = stft(samples_of(magnitudes * phases), n_fft, hop, window_length)[:, : magnitudes.shape[1]]
        moved = rebuilt - pull * before
        return moved / jnp.maximum(jnp.abs(moved), 1e-16), rebuilt

    require(size // hop + 1 >= magnitudes.shape[1], "length", length, "must hold all frames")
    phases = jnp.exp(2j * jnp.pi * jax.random.uniform(key, magnitudes.shape)).astype(jnp.complex64)
    phases, _ = jax.lax.fori_loop(0, iterations, improve, (phases, jnp.zeros_like(phases)))
    return samples_of(magnitudes * phases)


def _centred_window(name: str, length: int, n_fft: int, dtype: Any) -> Float[Array, "W"]:
    """The window with zeros on both sides up to `n_fft`, as precise as `dtype` and as float32 at least."""
    require(0 < length <= n_fft, "window_length", length, f"1 to n_fft = {n_fft}")
    left = (n_fft - length) // 2
    return jnp.asarray(
        np.pad(window_of(name, length), (left, n_fft - length - left)), jnp.promote_types(dtype, jnp.float32)
    )


def clipped(log_magnitude: jax.Array) -> jax.Array:
    """Log magnitudes kept below `MAX_LOG_MAGNITUDE`, so that an untrained head cannot overflow."""
    return jnp.minimum(log_magnitude, MAX_LOG_MAGNITUDE)


def polar(log_magnitude: Float[Array, "*B F"], phase: Float[Array, "*B F"]) -> jax.Array:
    """Complex values `exp(log_magnitude + i phase)`."""
    magnitude = jnp.exp(clipped(log_magnitude))
    return jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
