"""What holds of every scheme: codes come back, each has one place, nothing is written before what it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core import contracts
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.types import Codes
from slm_jax.schemes.coarse_first import CoarseFirst
from slm_jax.schemes.delay import Delay
from slm_jax.schemes.flattened import Flattened
from slm_jax.schemes.parallel import Parallel, TemporalDepth

LENGTHS, LONGEST = np.array([7, 0, 1, 5]), 7
SCHEMES = {
    "parallel": lambda k: Parallel(),
    "temporal and depth": lambda k: TemporalDepth(),
    "delay of one each": lambda k: Delay(delays=tuple(range(k))),
    "delay of two for all but the first": lambda k: Delay(delays=(0, *(2,) * (k - 1))),
    "interleaved": lambda k: Flattened(),
    "partly flattened": lambda k: Flattened(groups=(0, *(1,) * (k - 1))),
    "coarse first": lambda k: CoarseFirst(coarse=max(1, k // 2)),
    "coarse first by chunks": lambda k: CoarseFirst(coarse=max(1, k // 2), chunk=3),
}
BOOKS = [1, 2, 8, 32]


def codes(codebooks):
    mask = np.arange(LONGEST) < LENGTHS[:, None]
    ids = np.random.default_rng(codebooks).integers(1, 30, (len(LENGTHS), LONGEST, codebooks)) * mask[..., None]
    return Codes(jnp.asarray(ids, jnp.int32), jnp.asarray(mask))


@pytest.fixture(params=SCHEMES)
def make(request):
    return SCHEMES[request.param]


@pytest.mark.parametrize("codebooks", BOOKS)
def test_what_is_arranged_comes_back_in_a_batch_and_row_by_row(make, codebooks):
    scheme, given = make(codebooks), codes(codebooks)
    streams, back = jax.jit(lambda c: (scheme.arrange(c), scheme.restore(scheme.arrange(c))))(given)
    np.testing.assert_array_equal(back.ids, given.ids)
    np.testing.assert_array_equal(back.mask, given.mask)
    for row, length in enumerate(LENGTHS):
        alone = np.asarray(given.ids[row, :length])
        ids, valid = scheme.arrange_row(alone)
        np.testing.assert_array_equal(scheme.restore_row(ids), alone)
        assert ids.shape == valid.shape and valid.sum() == length * codebooks == int(streams.valid[row].sum())
        assert scheme.content(*ids.shape) == (length, codebooks)
    assert isinstance(scheme, contracts.Scheme) and from_json(scheme.to_json()) == scheme


@pytest.mark.parametrize("codebooks", BOOKS)
def test_entry_k_is_codebook_k_and_comes_after_what_it_is_given(make, codebooks):
    table = make(codebooks).table(9, codebooks)
    entry = np.broadcast_to(np.arange(codebooks), table.shape[:2])
    np.testing.assert_array_equal(table[..., 1], entry)
    when = np.full((9, codebooks), -1)
    for step, entries in enumerate(table):
        for time, codebook in entries[entries[:, 0] >= 0]:
            assert when[time, codebook] == -1, "each has one place"
            when[time, codebook] = step
    assert (when >= 0).all()
    assert (np.diff(when, axis=0) > 0).all(), "a frame after the one before"
    assert (np.diff(when, axis=1) >= 0).all(), "a finer codebook not before a coarser one"


def test_published_orders():
    assert Delay(delays=(0, 1, 2)).table(2, 3)[..., 0].tolist() == [[0, -1, -1], [1, 0, -1], [-1, 1, 0], [-1, -1, 1]]
    assert Flattened().table(2, 2)[..., 0].tolist() == [[0, -1], [-1, 0], [1, -1], [-1, 1]]
    assert Flattened(groups=(0, 1, 1)).table(2, 3)[..., 0].tolist() == [
        [0, -1, -1],
        [-1, 0, 0],
        [1, -1, -1],
        [-1, 1, 1],
    ]
    whole = CoarseFirst(coarse=1).table(2, 3)
    assert [tuple(row[row[:, 0] >= 0][0]) for row in whole] == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
    chunks = CoarseFirst(coarse=1, chunk=2).table(3, 2)
    assert [tuple(row[row[:, 0] >= 0][0]) for row in chunks] == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1)]
    assert TemporalDepth().ordered and not Parallel().ordered


@pytest.mark.parametrize(
    ("scheme", "late"),
    [
        (Parallel(), 0),
        (TemporalDepth(), 0),
        (Delay(delays=(0, 2, 2, 2)), 2),
        (Flattened(), 0),
        (CoarseFirst(coarse=2), 19),
        (CoarseFirst(coarse=2, chunk=5), 4),
    ],
)
def test_a_listener_waits_as_long_as_the_table_says(scheme, late):
    assert scheme.latency(20, 4) == late


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: Delay(delays=(1, 2)), "delays"),
        (lambda: Delay(delays=(0, 1)).table(4, 3), "there are 2 delays"),
        (lambda: Delay(delays=(0, 3)).content(3, 2), "longest delay 3"),
        (lambda: Flattened(groups=(0, 2)), "without a gap"),
        (lambda: Flattened(groups=(0, 1)).table(4, 3), "there are groups for 2"),
        (lambda: Flattened().content(5, 2), "a multiple of the 2 steps"),
        (lambda: CoarseFirst(coarse=0), "coarse"),
        (lambda: CoarseFirst(coarse=1, chunk=0), "chunk"),
    ],
)
def test_what_has_no_meaning_is_refused(refused, message):
    with pytest.raises(UserError, match=message):
        refused()


def test_a_table_that_lacks_a_code_is_refused():
    class Poor(Parallel):
        def table(self, frames, codebooks):
            return np.zeros((frames, codebooks, 2), int)

    with pytest.raises(UserError, match="each of 3 codebooks of 7 frames once"):
        Poor().restore(Parallel().arrange(codes(3)))
