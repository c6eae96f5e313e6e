"""Labels of frames, as a CTC layer gives them, to segments of frames: static shapes, with a bound on their number.

Rules, the first two as Speech-LLaMA (arXiv 2307.03917) compares them:

    runs           every run of equal labels, those of blanks too (frame averaging)
    spoken_frames  every frame whose label is not blank, by itself (blank removal)
    spoken_runs    every run of equal labels that are not blank
    spoken_spans   from the start of such a run to the start of the next; blanks in front of the first belong to it
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require

BLANK = 0
RULES = ("runs", "spoken_frames", "spoken_runs", "spoken_spans")


class Segments(NamedTuple):
    """The segment of each frame, counted from 0 in its row, -1 where it belongs to none; and how many a row has."""

    ids: Int[Array | np.ndarray, "B T"]
    counts: Int[Array | np.ndarray, "B"]


def segments_of(
    labels: Int[Array | np.ndarray, "B T"],
    mask: Bool[Array | np.ndarray, "B T"],
    *,
    rule: str = "runs",
    blank: int = BLANK,
    limit: Int[Array | np.ndarray, "B"] | None = None,
) -> Segments:
    """Segments of right-padded rows, in NumPy or JAX, whichever the labels are.

    A row in which nothing is spoken is one segment of all its real frames. `limit`: the most segments of each row, at
    least 1; frames of later ones join the last. Raises `UserError` for a rule that is not in `RULES`.
    """
    require(rule in RULES, "rule", rule, f"must be one of {', '.join(RULES)}")
    xp: Any = np if isinstance(labels, np.ndarray) else jnp
    before = xp.concatenate([xp.full_like(labels[:, :1], -1), labels[:, :-1]], axis=1)
    changes, spoken = mask & (labels != before), mask & (labels != blank)
    starts = {"runs": changes, "spoken_frames": spoken}.get(rule, changes & spoken)
    kept = spoken if rule in ("spoken_frames", "spoken_runs") else mask
    kept = xp.where(starts.any(1, keepdims=True), kept, mask)
    ids = xp.maximum(xp.cumsum(starts, axis=1) - 1, 0)
    counts = xp.maximum(starts.sum(1), mask.any(1))
    if limit is not None:
        ids, counts = xp.minimum(ids, limit[:, None] - 1), xp.minimum(counts, limit)
    return Segments(xp.where(kept, ids, -1).astype(xp.int32), counts.astype(xp.int32))


def segment_means(
    values: Float[Array, "B T D"], ids: Int[Array | np.ndarray, "B T"], segments: int
) -> Float[Array, "B {segments} D"]:
    """The mean of the frames of each segment, 0 where it has none; sums in float32 or wider."""
    add = jax.vmap(partial(jax.ops.segment_sum, num_segments=segments))
    ids = jnp.where(ids < 0, segments, ids)  # out of range: left out
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    sizes = add(jnp.ones(ids.shape, wide.dtype), ids)
    return (add(wide, ids) / jnp.maximum(sizes, 1)[..., None]).astype(values.dtype)
