"""Text and codes continued under any layout: what of a row is known is told, the rest is drawn.

Codes known and no text: it writes what it hears. Text known and no codes: it says what it reads. Both up to a frame: it
goes on with both.
"""

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.layouts.interleaved import Interleaved
from slm_jax.layouts.layout import Layout, merged
from slm_jax.layouts.said import Said
from slm_jax.schemes.table import Scheme


def told_row(
    layout: Layout,
    scheme: Scheme,
    said: Said,
    codes: Int[np.ndarray, "T K"],
    frames: int,
    size: int,
    *,
    written: int | None = None,
) -> Int[np.ndarray, "S K1"]:
    """What a row of `frames` frames is told (`generation.by_scheme.filled_in`): -1 where the model draws.

    Known are the first frames of `codes` and the first `written` entries of the text stream, one for each frame (None:
    all, so that `said` is the whole text). `size`: ids of the text. Raises `UserError` for more codes than frames, and
    for an interleaved layout without the whole text: only that tells where speech stands.
    """
    require(len(codes) <= frames, "frames", frames, f"there are codes of {len(codes)}")
    whole = written is None or not isinstance(layout, Interleaved)
    require(whole, "layout", type(layout).__name__, "takes turns: the whole text has to be known")
    slots = layout.slots(said, frames, np.random.default_rng(0))
    rule = "a row to be continued has every frame once, in their order"
    require(np.array_equal(slots.heard, np.arange(frames)), "layout", type(layout).__name__, rule)
    known = np.pad(codes, ((0, frames - len(codes)), (0, 0)), constant_values=-1)
    ids, valid = scheme.arrange_row(known)
    row = merged(slots, size, np.where(valid, ids, EMPTY), scheme.begins(*known.shape))
    if written is not None:
        asked = np.flatnonzero(row[:, 0] != EMPTY)
        row[asked[written:], 0] = -1
    return row
