"""Every layout under every scheme: nothing is lost, nothing is moved, nothing leaks from what comes later."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.layouts.beside import FixedPadding, PaddingAfter, TimeAligned
from slm_jax.layouts.interleaved import ByRatio, WordSpans
from slm_jax.layouts.layout import Slots, merged, parted, weights
from slm_jax.layouts.said import Said, heard_frames, said_of
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth

SIZE, FRAMES = 40, 24
P, W, _ = SIZE, SIZE + 1, EMPTY
LAYOUTS = {
    "after": PaddingAfter(),
    "after, ahead": PaddingAfter(ahead=2),
    "fixed": FixedPadding(pads=2),
    "aligned": TimeAligned(),
    "aligned, dropped": TimeAligned(overlap="drop"),
    "aligned, ahead": TimeAligned(ahead=3),
    "aligned, behind": TimeAligned(ahead=-2),
    "ratio": ByRatio(text=3, frames=5),
    "whole text, whole speech": ByRatio(text=None, frames=None),
    "spans": WordSpans(longest_span=2),
}
SCHEMES = {
    "parallel": lambda books: Parallel(),
    "delay": lambda books: Delay(delays=tuple(2 * book for book in range(books))),
    "interleaved": lambda books: Flattened(),
    "coarse first": lambda books: CoarseFirst(coarse=1),
    "coarse first, chunks": lambda books: CoarseFirst(coarse=1, chunk=5),
    "temporal and depth": lambda books: TemporalDepth(),
}


def recording(books, seed=0, frames=FRAMES):
    """Words of 1 to 4 ids, some of which overlap, and codes."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(SIZE, size=rng.integers(1, 5)) for _ in range(6)]
    first = np.sort(rng.integers(frames, size=6))
    return said_of(words, np.stack([first, first + 2], 1)), rng.integers(100, size=(frames, books))


def row_of(layout, scheme, said, codes, seed=0):
    slots = layout.slots(said, len(codes), np.random.default_rng(seed))
    heard = codes[slots.heard]
    ids, valid = scheme.arrange_row(heard)
    row = merged(slots, SIZE, np.where(valid, ids, EMPTY), scheme.begins(*heard.shape))
    return slots, heard, row


@pytest.mark.parametrize("books", [1, 8])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_row_holds_all_of_it_and_gives_it_back(layout, scheme, books):
    scheme = scheme(books)
    for seed in range(5):
        said, codes = recording(books, seed)
        slots, heard, row = row_of(layout, scheme, said, codes, seed)
        text, steps = parted(row, SIZE)
        np.testing.assert_array_equal(text, slots.text[slots.text >= 0])
        np.testing.assert_array_equal(scheme.restore_row(steps), heard)
        if layout != LAYOUTS["aligned, dropped"] and not isinstance(layout, WordSpans):
            np.testing.assert_array_equal(text, said.ids)
            np.testing.assert_array_equal(heard, codes)
        assert len(row) <= layout.longest(len(scheme.table(*codes.shape)), len(codes), len(said.ids))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_comes_later_changes_nothing_before_it(layout, scheme):
    """Other codes from a frame on show first where that frame's first code stands."""
    scheme = scheme(4)
    said, codes = recording(4)
    for cut in (1, 9, 20):
        other = codes.copy()
        other[cut:] = 100 + other[cut:]
        rows = [row_of(layout, scheme, said, these)[2] for these in (codes, other)]
        changed = np.flatnonzero((rows[0] != rows[1]).any(1))
        later = np.flatnonzero((rows[1][:, 1:] >= 100).any(1))
        np.testing.assert_array_equal(changed, later)


@pytest.mark.parametrize("overlap", ["shift", "drop"])
@pytest.mark.parametrize("ahead", [-2, 0, 3])
def test_words_that_come_later_change_no_text_before_the_mark_in_front_of_them(overlap, ahead):
    layout = TimeAligned(ahead=ahead, overlap=overlap)
    for seed in range(8):
        said, _codes = recording(1, seed)
        for word in range(1, len(said.place)):
            known = said.place[word, 0]
            cut = said_of([said.ids[slice(*place)] for place in said.place[:word]], said.frames[:word])
            whole, part = (layout.slots(some, FRAMES, np.random.default_rng(0)).text for some in (said, cut))
            begins = int(said.frames[word, 0])
            same = max(0, begins - 1) + max(0, -ahead)
            np.testing.assert_array_equal(whole[:same], part[:same])
            assert (whole >= 0).sum() >= (part[:begins] >= 0).sum() and known > 0


def one(words, frames, books=1):
    """A recording whose codes are the frames' numbers."""
    ids, first = [np.arange(10 * n, 10 * n + length) for n, (length, _) in enumerate(words)], [at for _, at in words]
    said = said_of(ids, np.stack([first, np.add(first, 1)], 1))
    return said, np.arange(frames)[:, None] + 100 * np.arange(1, 1 + books)


def drawn(layout, said, codes, scheme=None):
    return row_of(layout, scheme or Parallel(), said, codes)[2].T.tolist()


def test_padding_after_the_text():
    said, codes = one([(2, 0), (1, 4)], 5)
    assert drawn(PaddingAfter(), said, codes) == [[0, 1, 10, P, P], [100, 101, 102, 103, 104]]
    assert drawn(PaddingAfter(ahead=1), said, codes) == [[0, 1, 10, P, P, _], [_, 100, 101, 102, 103, 104]]
    assert drawn(PaddingAfter(), *one([(4, 0)], 2)) == [[0, 1, 2, 3], [100, 101, _, _]]


def test_fixed_padding_behind_every_id():
    said, codes = one([(2, 0), (1, 4)], 7)
    assert drawn(FixedPadding(pads=1), said, codes)[0] == [0, P, 1, P, 10, P, P]
    assert drawn(FixedPadding(pads=0), said, codes) == drawn(PaddingAfter(), said, codes)


def test_words_stand_where_they_are_heard_and_a_mark_before_them():
    said, codes = one([(2, 0), (1, 5)], 8)
    assert drawn(TimeAligned(), said, codes)[0] == [W, 0, 1, P, W, 10, P, P]
    assert drawn(TimeAligned(ahead=2), said, codes) == [
        [W, 0, 1, P, W, 10, P, P, _, _],
        [_, _, 100, 101, 102, 103, 104, 105, 106, 107],
    ]
    assert drawn(TimeAligned(ahead=-1), said, codes) == [[_, W, 0, 1, P, W, 10, P], [*range(100, 108)]]


def test_words_that_run_into_each_other():
    said, codes = one([(3, 2), (2, 4), (1, 5)], 7)
    assert drawn(TimeAligned(), said, codes) == [[P, W, 0, 1, 2, 10, 11, 20], [*range(100, 107), _]]
    assert drawn(TimeAligned(overlap="drop"), said, codes)[0] == [P, W, 0, 1, 10, 20, P]


def test_text_and_speech_take_turns():
    said, codes = one([(2, 0), (3, 2)], 5)
    assert drawn(ByRatio(text=2, frames=3), said, codes) == [
        [0, 1, P, P, P, 10, 11, P, P, 12],
        [_, _, 100, 101, 102, _, _, 103, 104, _],
    ]
    assert drawn(ByRatio(text=None, frames=None), said, codes)[0] == [0, 1, 10, 11, 12, P, P, P, P, P]
    with pytest.raises(UserError, match="text is 0"):
        ByRatio(text=0)


def test_spans_of_words_are_read_or_heard():
    said, codes = one([(2, 1), (1, 4), (2, 6)], 9)
    layout = WordSpans(longest_span=2)
    found = {tuple(map(tuple, row_of(layout, Parallel(), said, codes, seed)[2].tolist())) for seed in range(40)}
    spoken_first = ((P, 100), (P, 101), (P, 102), (P, 103), (10, _), (P, 106), (P, 107), (P, 108))
    assert spoken_first in found
    assert ((0, _), (1, _), (10, _), (P, 106), (P, 107), (P, 108)) in found
    assert len(found) == 6  # spans of one and two words, and who begins
    nothing = said_of([], np.zeros((0, 2), int))
    assert drawn(WordSpans(), nothing, codes) == [[P] * 9, list(range(100, 109))]


def test_what_a_delay_owes_comes_behind_the_text_in_between():
    said, codes = one([(1, 0)], 3, books=2)
    row = drawn(ByRatio(text=1, frames=None), said, codes, Delay(delays=(0, 1)))
    assert row == [[0, P, P, P, _], [_, 100, 101, 102, _], [_, _, 200, 201, 202]]
    row = drawn(ByRatio(text=1, frames=2), *one([(2, 0)], 3, books=2), Delay(delays=(0, 1)))
    assert row == [[0, P, P, 1, P, _], [_, 100, 101, _, 102, _], [_, _, 200, _, 201, 202]]


def test_only_the_first_step_of_a_frame_asks_for_text():
    said, codes = one([(1, 0), (1, 1)], 2, books=2)
    assert drawn(PaddingAfter(), said, codes, Flattened()) == [[0, _, 10, _], [100, _, 101, _], [_, 200, _, 201]]


def test_padding_counts_less_and_nothing_counts_nothing():
    said, codes = one([(1, 1)], 3)
    row = row_of(TimeAligned(), Delay(delays=(0,)), said, codes)[2]
    assert weights(row, SIZE, 0.5).tolist() == [[0.5, 1.0], [1.0, 1.0], [0.5, 1.0]]
    row = row_of(TimeAligned(ahead=1), Parallel(), said, codes)[2]
    assert weights(row, SIZE, 0.25)[[0, -1]].tolist() == [[0.25, 0.0], [0.0, 1.0]]


def test_seconds_become_frames():
    found = heard_frames(np.array([0.0, 0.36, 0.5]), np.array([0.36, 0.37, 0.5]), 50.0)
    assert found.tolist() == [[0, 18], [18, 19], [25, 26]]


def test_a_stretch_of_a_recording_has_the_words_that_begin_in_it():
    said, _codes = one([(2, 1), (1, 4), (2, 6)], 9)
    cut = said.within(3, 7)
    assert cut.ids.tolist() == [10, 20, 21]
    assert cut.place.tolist() == [[0, 1], [1, 3]] and cut.frames.tolist() == [[1, 2], [3, 4]]
    assert said.within(7, 9).ids.size == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match=r"words is \[1\]: must begin in the order"):
        said_of([np.array([1]), np.array([2])], np.array([[3, 4], [1, 2]]))
    with pytest.raises(UserError, match=r"words is \[0\]: must not end before"):
        said_of([np.array([1])], np.array([[3, 2]]))
    with pytest.raises(UserError, match="frames is 0"):
        said_of([np.array([1])], np.zeros((0, 2), int))
    slots = Slots(np.array([SIZE]), np.array([0]))
    with pytest.raises(UserError, match=rf"text ids is \[{SIZE}\]"):
        merged(slots, SIZE, np.zeros((1, 1), int), np.zeros(1, int))
    assert isinstance(said_of([], np.zeros((0, 2), int)), Said)
