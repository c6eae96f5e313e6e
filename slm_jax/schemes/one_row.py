"""Codes of several books as one row of ids, for models of one stream: a scheme says the order, each book has own ids.

Book q has the ids from `o_q = size_0 + ... + size_{q-1}` on (Borsos et al. 2022: `o_q = q N`), so that the same number
in two books is two ids. Schemes must hold one code in every step, as `Flattened()` and `CoarseFirst` do.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.errors import require
from slm_jax.schemes.table import Scheme, Table


def row_of(scheme: Scheme, codes: Int[np.ndarray, "T K"], sizes: Sequence[int]) -> Int[np.ndarray, "S"]:
    """Ids of these codes, int32. Raises `UserError` for a code outside its book."""
    require(codes.shape[1] == len(sizes), "books", codes.shape[1], f"there are sizes of {len(sizes)}")
    outside = codes[(codes < 0) | (codes >= np.array(sizes))]
    require(outside.size == 0, "codes", outside[:5].tolist(), f"must lie in the sizes {tuple(sizes)}")
    table = scheme.table(*codes.shape)
    book = book_of(table)
    time = table[np.arange(len(table)), book, 0]
    return (codes[time, book] + first_ids(sizes)[book]).astype(np.int32)


def codes_of(scheme: Scheme, ids: Int[np.ndarray, "S"], sizes: Sequence[int]) -> Int[np.ndarray, "T K"]:
    """The inverse of `row_of`, int32. Raises `UserError` for an id of another book than its step holds."""
    frames, books = scheme.content(len(ids), len(sizes))
    table = scheme.table(frames, books)
    book = book_of(table)
    code = ids - first_ids(sizes)[book]
    wrong = np.flatnonzero((code < 0) | (code >= np.array(sizes)[book]))
    if len(wrong):
        step = int(wrong[0])
        first, size = int(first_ids(sizes)[book[step]]), sizes[book[step]]
        rule = f"this step holds a code of book {book[step]}, whose ids are {first} to {first + size - 1}"
        require(False, f"id at step {step}", int(ids[step]), rule)
    codes = np.zeros((frames, books), np.int32)
    codes[table[np.arange(len(table)), book, 0], book] = code
    return codes


def legal_ids(scheme: Scheme, frames: int, sizes: Sequence[int]) -> Bool[np.ndarray, "S V"]:
    """Which ids may stand at each step of so many frames: those of the one book that it holds."""
    book = book_of(scheme.table(frames, len(sizes)))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner == book[:, None]


def first_ids(sizes: Sequence[int]) -> Int[np.ndarray, "K"]:
    """`o_q` of every book."""
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def book_of(table: Table) -> Int[np.ndarray, "S"]:
    """The book of the only code of each step; raises `UserError` where a step holds none or several."""
    held = table[..., 0] >= 0
    counts = held.sum(1)
    one = bool((counts == 1).all())
    require(one, "codes in a step", sorted(set(counts.tolist())), "one row of ids needs a scheme with one in each")
    return held.argmax(1)
