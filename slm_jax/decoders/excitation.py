"""What drives a vocoder's filters: the harmonics of F0, and noise.

Source: the harmonic-plus-noise model (Engel et al. 2020, DDSP; Wang et al. 2019, neural source-filter).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

DEFAULT_F0_HZ = 150.0
BAND = 0.495
"""Harmonics reach up to this share of the rate: one that fell on half of it would come out with twice its power."""
NEAR_PULSE = 1e-3
"""Below this `sin(angle / 2)` the sum of harmonics is taken from its limit."""


def harmonics(
    f0_hz: Float[Array, "B T"], voiced: Bool[Array, "B T"], hop: int, rate_hz: int = 16_000
) -> Float[Array, "B N"]:
    """All harmonics of F0 below `BAND rate_hz` with one amplitude, unit power where voiced; N = T hop.

    F0 (Hz) runs straight between frame centres on a logarithmic scale and the voicing ramps up and down between them.
    """
    pitch = jnp.exp(spread(jnp.log(filled(f0_hz.astype(jnp.float32), voiced)), hop))
    count = jnp.floor(BAND * rate_hz / pitch)
    angle = 2 * math.pi * running_cycles(pitch / rate_hz, hop)
    half = jnp.sin(angle / 2)
    near = jnp.abs(half) < NEAR_PULSE
    ratio = jnp.sin((count + 0.5) * angle) / jnp.where(near, 1.0, half)
    total = 0.5 * (jnp.where(near, 2 * count + 1, ratio) - 1.0)
    return total * jnp.sqrt(2.0 / count) * spread(voiced.astype(jnp.float32), hop)


def noise(key: jax.Array, samples: int) -> Float[Array, "1 N"]:
    """Gaussian noise of unit power, the same for every row; the first samples do not depend on how many are drawn."""
    return jax.random.normal(key, (1, samples))


def filled(f0_hz: Float[Array, "B T"], voiced: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """F0 with every unvoiced frame holding the last voiced one's value (`DEFAULT_F0_HZ` before the first)."""
    frames = jnp.arange(f0_hz.shape[1])
    last = jax.lax.cummax(jnp.where(voiced, frames, -1), axis=1)
    held = jnp.take_along_axis(f0_hz, jnp.maximum(last, 0), axis=1)
    return jnp.where(last < 0, DEFAULT_F0_HZ, jnp.maximum(held, 20.0))


def spread(values: Float[Array, "B T"], hop: int) -> Float[Array, "B N"]:
    """Values at frame centres to samples, straight lines between, level beyond the first and last centre."""
    position = (jnp.arange(hop) + 0.5) / hop - 0.5
    before = jnp.concatenate([values[:, :1], values[:, :-1]], axis=1)[..., None]
    after = jnp.concatenate([values[:, 1:], values[:, -1:]], axis=1)[..., None]
    here = values[..., None]
    line = jnp.where(position < 0, here + (here - before) * position, here + (after - here) * position)
    return line.reshape(values.shape[0], -1)


def running_cycles(cycles: Float[Array, "B N"], hop: int) -> Float[Array, "B N"]:
    """Cycles since the start, less whole ones: -1/2 to 1/2. No gradient passes through.

    They are summed as integers of 2**-32 cycles, whose overflow drops whole cycles: exact in speech of any length,
    and the same however long the row is. Rounding of float sums would reach the high harmonics fifty times enlarged.
    """
    parts = cycles - jnp.round(cycles)
    steps = (parts * 2.0**32).astype(jnp.int32).reshape(cycles.shape[0], -1, hop)
    within = jnp.cumsum(steps, axis=-1)
    frames = within[..., -1]
    start = jnp.cumsum(frames, axis=1) - frames
    return (within + start[..., None]).astype(jnp.float32).reshape(cycles.shape) / 2.0**32
