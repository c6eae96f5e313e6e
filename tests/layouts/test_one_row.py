"""Text and units in one row of ids; streams of several rates in one: what others write, by hand, and back."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.layouts.beside import PaddingAfter
from slm_jax.layouts.by_time import Timed, carried_on, sorted_by_time
from slm_jax.layouts.interleaved import ByRatio, WordSpans
from slm_jax.layouts.one_row import parted_row, row_of
from slm_jax.layouts.said import said_of
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary

MARKS = ("[Text]", "[Speech]")
SPIRIT = ExpandedVocabulary(text=32_000, specials=MARKS, ranges=(("Hu", 501), ("Pi", 64), ("St", 100)))
SAID = said_of([np.array([7, 8]), np.array([9]), np.array([10])], np.array([[0, 2], [2, 4], [4, 6]]))
UNITS = np.array([5, 5, 1, 0, 500, 3])


def row(layout, seed=0, said=SAID):
    slots = layout.slots(said, len(UNITS), np.random.default_rng(seed))
    return slots, row_of(slots, UNITS, SPIRIT, MARKS, "Hu")


def test_ids_are_those_of_the_released_table():
    """32000 and 32001 are the marks, units follow from 32002, then pitch and style."""
    assert row(ByRatio(text=None, frames=None))[1].tolist() == [
        32_000, 7, 8, 9, 10, 32_001, 32_007, 32_007, 32_003, 32_002, 32_502, 32_005
    ]  # fmt: skip
    assert [SPIRIT.bounds(name) for name in ("Pi", "St")] == [(32_503, 32_567), (32_567, 32_667)]


def test_a_mark_stands_wherever_a_turn_begins():
    assert row(ByRatio(text=3, frames=4))[1].tolist() == [
        32_000, 7, 8, 9, 32_001, 32_007, 32_007, 32_003, 32_002, 32_000, 10, 32_001, 32_502, 32_005
    ]  # fmt: skip
    nothing = said_of([], np.zeros((0, 2), int))
    assert row(WordSpans(), said=nothing)[1].tolist()[:2] == [32_001, 32_007]


@pytest.mark.parametrize("layout", [ByRatio(text=1, frames=2), ByRatio(text=None, frames=5), WordSpans(longest_span=1)])
def test_text_and_units_come_back(layout):
    for seed in range(4):
        slots, ids = row(layout, seed)
        text, units = parted_row(ids, SPIRIT, "Hu")
        np.testing.assert_array_equal(text, slots.text[slots.text >= 0])
        np.testing.assert_array_equal(units, UNITS[slots.heard])


def test_what_stands_side_by_side_is_refused():
    with pytest.raises(UserError, match=r"slots is \[0, 1, 2, 3\]: hold text and a frame"):
        row(PaddingAfter())


UNIT, PITCH, STYLE = np.array([78, 42, 81, 159, 316, 259]), np.array([13, 13, 3]), np.array([81])
STREAMS = (Timed(STYLE, 1.0), Timed(PITCH, 12.5, once=True), Timed(UNIT, 24.99))


def test_streams_are_sorted_as_spirit_lm_does():
    """[St81][Pi13][Hu78][Hu42][Hu81][Hu159][Pi3][Hu316][Hu259], by the released code."""
    which, ids = sorted_by_time(STREAMS)
    assert which.tolist() == [0, 1, 2, 2, 2, 2, 1, 2, 2]
    assert ids.tolist() == [81, 13, 78, 42, 81, 159, 3, 316, 259]


def test_what_was_said_last_is_carried_on():
    """And in the released code back: pitch 13 13 13 13 3 3."""
    which, ids = sorted_by_time(STREAMS)
    assert carried_on(which, ids, 3, lead=2).T.tolist() == [[81] * 6, [13, 13, 13, 13, 3, 3], UNIT.tolist()]
    late = np.array([2, 1, 2, 2])
    assert carried_on(late, np.array([4, 9, 5, 6]), 3, lead=2).T.tolist() == [[-1] * 3, [9, 9, 9], [4, 5, 6]]


def test_nothing_is_sorted_and_no_rate_is_refused():
    which, ids = sorted_by_time([Timed(np.zeros(0, int), 2.0, once=True)])
    assert which.size == ids.size == 0
    with pytest.raises(UserError, match="rates is"):
        sorted_by_time([Timed(UNIT, 0.0)])
