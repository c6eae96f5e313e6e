"""Positions: from masks and segments to ids, and from ids to sinusoids and rotations."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.recompute import made_once


class RopeScaling(Config):
    """How rotary frequencies are stretched beyond the length of pre-training.

    `kind` "linear" divides every frequency by `factor`; "llama3" divides only the slow ones, with a smooth passage
    between wavelengths of `original_length / low` and `original_length / high` (LLaMA 3.1, `rope_type: llama3`).
    """

    kind: str = "linear"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        require(self.kind in ("linear", "llama3"), "kind", self.kind, "must be linear or llama3")
        require(self.factor >= 1.0, "factor", self.factor, "must be at least 1")


class Rotation(NamedTuple):
    """Cosine and sine of every position's angles, float32 or wider."""

    cos: Float[Array, "B T C2"]
    sin: Float[Array, "B T C2"]


def positions_from_mask(mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """The index of every entry among the real ones of its row; 0 for what comes before the first."""
    return jnp.maximum(jnp.cumsum(mask, axis=-1, dtype=jnp.int32) - 1, 0)


def last_real(x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B D"]:
    """The last real entry of every row, padded on either side; `mask` None: all are real."""
    if mask is None:
        return x[:, -1]
    last = x.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


def positions_in_segments(segment_ids: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The index of every entry within its run of equal segment ids."""
    index = jnp.arange(segment_ids.shape[-1], dtype=jnp.int32)
    previous = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    starts = jnp.where(segment_ids != previous, index, 0)
    return index - jnp.maximum.accumulate(starts, axis=-1)


def sinusoidal(positions: Int[Array, "*B"], width: int, cosines_first: bool = False) -> Float[Array, "*B D"]:
    """fairseq's layout: all sines, then all cosines; the exponent runs over `width / 2 - 1`.

    `cosines_first`: the halves change places, as in MusicGen.
    """
    half, widest = width // 2, jnp.result_type(float)
    rates = jnp.exp(jnp.arange(half, dtype=widest) * -(math.log(10_000.0) / max(half - 1, 1)))
    angles = positions[..., None].astype(widest) * rates
    halves = [jnp.sin(angles), jnp.cos(angles)]
    table = jnp.concatenate(halves[::-1] if cosines_first else halves, axis=-1)
    return jnp.pad(table, [(0, 0)] * positions.ndim + [(0, width % 2)])


def rotation(
    positions: Int[Array, "B T"],
    head_width: int,
    base: float,
    scaling: RopeScaling | None = None,
    dtype: Any = jnp.float32,
) -> Rotation:
    """Rotary angles of `positions` for heads of `head_width` channels (Su et al. 2021), in float32 or wider."""
    rates = base ** -(jnp.arange(0, head_width, 2, dtype=dtype) / head_width)
    angles = positions[..., None].astype(dtype) * _scaled(rates, scaling)
    return Rotation(*made_once(lambda angles: (jnp.cos(angles), jnp.sin(angles)), angles))


def rotate(x: Float[Array, "B T H C"], by: Rotation) -> Float[Array, "B T H C"]:
    """Rotates channel i with channel i + C/2, the half-split pairing of LLaMA in `transformers`."""
    cos, sin = by.cos[:, :, None, :], by.sin[:, :, None, :]
    first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def _scaled(rates: Float[Array, "C2"], scaling: RopeScaling | None) -> Float[Array, "C2"]:
    if scaling is None:
        return rates
    if scaling.kind == "linear":
        return rates / scaling.factor
    turns = scaling.original_length * rates / (2 * math.pi)  # full turns within the original length
    keep = jnp.clip((turns - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
    return rates * keep + rates / scaling.factor * (1.0 - keep)
