"""From units with durations to one unit per frame, in shapes that are known beforehand."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def frame_index(
    durations: Int[Array, "B S"], mask: Bool[Array, "B S"], capacity: int
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """For each of `capacity` frames the unit it belongs to, and whether the frame is real.

    Unit s covers `durations[s]` frames after those of the units before it. Frames beyond `capacity` are cut off.
    """
    ends = jnp.cumsum(jnp.where(mask, durations, 0), axis=1)
    frames = jnp.arange(capacity)
    index = jax.vmap(lambda row: jnp.searchsorted(row, frames, side="right"))(ends)
    return jnp.minimum(index, durations.shape[1] - 1), frames < ends[:, -1:]


def regulate(
    values: Array, durations: Int[Array, "B S"], mask: Bool[Array, "B S"], capacity: int
) -> tuple[Array, Bool[Array, "B T"]]:
    """`values [B, S, ...]` repeated by their durations to `[B, capacity, ...]` (zero beyond), and the frame mask."""
    index, real = frame_index(durations, mask, capacity)
    trailing = (1,) * (values.ndim - 2)
    taken = jnp.take_along_axis(values, index.reshape(*index.shape, *trailing), axis=1)
    return jnp.where(real.reshape(*real.shape, *trailing), taken, 0), real


def frames_from_log(log_durations: Float[Array, "B S"], mask: Bool[Array, "B S"]) -> Int[Array, "B S"]:
    """Frames of each unit, `max(1, round(exp(x) - 1))` where real and 0 elsewhere."""
    frames = jnp.maximum(1, jnp.round(jnp.expm1(log_durations.astype(jnp.float32)))).astype(jnp.int32)
    return jnp.where(mask, frames, 0)
