"""Text and speech in turns: at the beginning of every frame the model writes a piece of text, or speaks the frame."""

from typing import Any

import numpy as np
from jaxtyping import Array, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.generation.advance import Decoding, stream_sizes
from slm_jax.schemes.table import Scheme
from slm_jax.serving.session import Session


def in_turns(
    steps: Decoding,
    params: Any,
    codes: Int[np.ndarray, "B T K"],
    scheme: Scheme,
    frames: int,
    text: int,
    key: Key[Array, ""] | Key[Array, "B"],
) -> list[Int[np.ndarray, "_ K1"]]:
    """Rows of an interleaved layout, the speech of `codes` first, until each has `frames` frames.

    The model draws stream 0 where a frame begins: text stands alone, anything else lets the frame be spoken.
    `steps.config.alone` says which ids are text; after `text` of them a row only speaks. Raises `UserError` for more
    codes than frames.
    """
    rows, heard, books = codes.shape
    size = steps.config.alone
    require(0 < size < stream_sizes(steps.model)[0], "alone", size, "ids of the text, of which stream 0 has more")
    require(heard <= frames, "frames", frames, f"there are codes of {heard}")
    known = np.pad(codes, ((0, 0), (0, frames - heard), (0, 0)), constant_values=-1)
    arranged = [scheme.arrange_row(row) for row in known]
    pattern = np.stack([np.where(valid, ids, EMPTY) for ids, valid in arranged])
    count, begins = pattern.shape[1], scheme.begins(frames, books)
    free = begins[heard] if heard < frames else count
    session = Session(steps, params, rows, 1 + count + text, key)
    session.push(np.full((rows, 1 + books), EMPTY))
    at, written = np.zeros(rows, int), np.zeros(rows, int)
    found: list[list[Int[np.ndarray, "K1"]]] = [[] for _ in range(rows)]
    while (going := at < count).any():
        step = np.minimum(at, count - 1)
        speech = np.where((step < free) | (written >= text), size, -1)
        first = np.where(np.isin(step, begins), speech, EMPTY)
        told = np.concatenate([first[:, None], pattern[np.arange(rows), step]], axis=1)
        made = np.asarray(session.push(told, going).ids)
        writes = going & (made[:, 0] >= 0) & (made[:, 0] < size)
        for row in np.flatnonzero(going):
            found[row].append(made[row])
        at, written = at + (going & ~writes), written + writes
    return [np.stack(row) for row in found]
