"""Interleaved text and units as one row of ids, for models of one stream: a mark stands wherever one follows the other.

The ids are those of an expanded text table (`text.expanded_vocabulary`): text from 0, the marks, then the units. With
marks `[Text]` and `[Speech]` and 501 units behind 32,000 text ids they are SpiRit-LM's (Nguyen et al. 2024).
"""

import numpy as np
from jaxtyping import Int

from slm_jax.core.errors import require
from slm_jax.layouts.layout import Slots
from slm_jax.text.expanded_vocabulary import TEXT, ExpandedVocabulary


def row_of(
    slots: Slots, units: Int[np.ndarray, "T"], vocabulary: ExpandedVocabulary, marks: tuple[str, str], units_name: str
) -> Int[np.ndarray, "S"]:
    """Ids of slots in which text stands alone and frames without text, each span behind its mark.

    `units`: of every frame; `marks`: the specials before text and before speech; `units_name`: the range of the units.
    Raises `UserError` for a layout in which the two stand side by side.
    """
    return marked_row(slots, np.asarray(vocabulary.encode_range(units_name, units)), vocabulary, marks)


def marked_row(
    slots: Slots, speech: Int[np.ndarray, "T"], vocabulary: ExpandedVocabulary, marks: tuple[str, str]
) -> Int[np.ndarray, "S"]:
    """`row_of` where ids of the table stand for every frame already, of whatever ranges (units, pitch, style)."""
    heard = slots.frame >= 0
    beside = heard & (slots.text >= 0)
    require(not beside.any(), "slots", np.flatnonzero(beside)[:5].tolist(), "hold text and a frame: take turns")
    written = slots.text >= 0
    ids = np.zeros(len(heard), np.int64)
    ids[heard] = speech[slots.frame[heard]]
    ids[written] = vocabulary.encode_range(TEXT, slots.text[written])
    real, speaks = heard | written, heard[heard | written]
    turns = np.flatnonzero(np.append(True, speaks[1:] != speaks[:-1])) if len(speaks) else np.zeros(0, int)
    signs = np.array([vocabulary.special(mark) for mark in marks])
    return np.insert(ids[real], turns, signs[speaks[turns].astype(int)]).astype(np.int32)


def parted_row(
    ids: Int[np.ndarray, "S"], vocabulary: ExpandedVocabulary, units_name: str
) -> tuple[Int[np.ndarray, "L"], Int[np.ndarray, "T"]]:
    """Text ids and units of a row, each in its order: the inverse of `row_of`, marks apart."""
    found = []
    for name in (TEXT, units_name):
        values, inside = vocabulary.decode_range(name, ids)
        found.append(np.asarray(values)[np.asarray(inside)])
    return found[0], found[1]
