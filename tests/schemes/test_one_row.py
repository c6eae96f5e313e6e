"""Codes as one row of ids: against loops, there and back, and what is refused."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.one_row import codes_of, legal_ids, row_of

SIZES = (5, 3, 4)
LENGTHS = [6, 1, 0, 4]


def drawn(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).integers(0, SIZES, (frames, len(SIZES)))


def oracle(codes: np.ndarray) -> list[int]:
    """Frame by frame; the ids of a book begin behind those of the books before it."""
    return [code + sum(SIZES[:book]) for frame in codes.tolist() for book, code in enumerate(frame)]


@pytest.mark.parametrize("frames", LENGTHS)
def test_the_flat_order_equals_a_loop_and_comes_back(frames):
    codes = drawn(frames)
    ids = row_of(Flattened(), codes, SIZES)
    assert ids.dtype == np.int32 and ids.tolist() == oracle(codes)
    np.testing.assert_array_equal(codes_of(Flattened(), ids, SIZES), codes)


def test_books_of_one_size_are_that_far_apart():
    codes = np.array([[1, 1, 1], [0, 2, 1]])
    assert row_of(Flattened(), codes, (10, 10, 10)).tolist() == [1, 11, 21, 0, 12, 21]


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("scheme", [CoarseFirst(coarse=1), CoarseFirst(coarse=2, chunk=3)])
def test_other_orders_come_back_too(scheme, frames):
    codes = drawn(frames)
    ids = row_of(scheme, codes, SIZES)
    assert sorted(ids.tolist()) == sorted(oracle(codes))
    np.testing.assert_array_equal(codes_of(scheme, ids, SIZES), codes)


@pytest.mark.parametrize("scheme", [Flattened(), CoarseFirst(coarse=1, chunk=2)])
def test_only_the_ids_of_the_book_of_a_step_are_legal(scheme):
    codes = drawn(5)
    legal, ids = legal_ids(scheme, 5, SIZES), row_of(scheme, codes, SIZES)
    assert legal.shape == (15, sum(SIZES)) and legal[np.arange(15), ids].all()
    held = np.searchsorted(np.cumsum(SIZES), ids, side="right")
    assert legal.sum(1).tolist() == [SIZES[book] for book in held]
    if isinstance(scheme, Flattened):
        assert (legal[:3].sum(0) == 1).all() and (legal[:3] == legal[3:6]).all()


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: row_of(Flattened(), np.zeros((2, 2), int), SIZES), "books is 2: there are sizes of 3"),
        (lambda: row_of(Flattened(), np.array([[4, 3, 0]]), SIZES), r"codes is \[3\]: must lie in the sizes"),
        (lambda: row_of(Delay(delays=(0, 1, 1)), drawn(3), SIZES), r"codes in a step is \[1, 2, 3\]: one row of ids"),
        (lambda: codes_of(Flattened(), np.array([1, 5, 7]), SIZES), "step 2 is 7: .* book 2, whose ids are 8 to 11"),
        (lambda: codes_of(Flattened(), np.array([1, 5]), SIZES), "a multiple of the 3 steps"),
    ],
)
def test_what_has_no_meaning_is_refused(refused, message):
    with pytest.raises(UserError, match=message):
        refused()
