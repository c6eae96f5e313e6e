import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import Scheme
from slm_jax.core.errors import UserError
from slm_jax.core.types import Codes
from slm_jax.schemes.parallel import Parallel
from slm_jax.schemes.table import arrange, arrange_row, restore, restore_row

SCHEME = Parallel()
LENGTHS = np.array([5, 1, 3])


@dataclasses.dataclass(frozen=True)
class Delayed:
    """Codebook k one step later than the one before it: a table with holes."""

    def table(self, frames, codebooks):
        step, codebook = np.mgrid[: frames + codebooks - 1, :codebooks]
        time = step - codebook
        return np.stack([np.where(time < frames, np.maximum(time, -1), -1), codebook], -1)

    def content(self, steps, entries):
        return steps - entries + 1, entries


def codes(codebooks):
    mask = np.arange(5) < LENGTHS[:, None]
    ids = np.random.default_rng(codebooks).integers(1, 30, (3, 5, codebooks)) * mask[..., None]
    return Codes(jnp.asarray(ids, jnp.int32), jnp.asarray(mask))


@pytest.mark.parametrize("codebooks", [1, 3])
@pytest.mark.parametrize("scheme", [SCHEME, Delayed()], ids=["parallel", "a table with holes"])
def test_what_is_arranged_comes_back(scheme, codebooks):
    given = codes(codebooks)
    back = jax.jit(lambda c: restore(scheme, arrange(scheme, c)))(given)
    np.testing.assert_array_equal(back.ids, given.ids)
    np.testing.assert_array_equal(back.mask, given.mask)


@pytest.mark.parametrize("codebooks", [1, 3])
@pytest.mark.parametrize("scheme", [SCHEME, Delayed()], ids=["parallel", "a table with holes"])
def test_a_row_in_numpy_is_what_the_batch_holds_and_comes_back(scheme, codebooks):
    given = codes(codebooks)
    streams = arrange(scheme, given)
    for row, length in enumerate(LENGTHS):
        alone = np.asarray(given.ids[row, :length])
        ids, valid = arrange_row(scheme, alone)
        np.testing.assert_array_equal(restore_row(scheme, ids), alone)
        np.testing.assert_array_equal(streams.ids[row][: len(ids)] * valid, ids)
        assert int(streams.valid[row].sum()) == valid.sum() == length * codebooks


def test_a_step_holds_all_codebooks_of_one_frame():
    assert isinstance(SCHEME, Scheme)
    streams = SCHEME.arrange(codes(3))
    np.testing.assert_array_equal(streams.ids, codes(3).ids)
    assert streams.valid.sum(1).tolist() == [[length] * 3 for length in LENGTHS]
    np.testing.assert_array_equal(SCHEME.restore(streams).ids, codes(3).ids)


def test_a_table_that_lacks_a_code_is_refused():
    class Poor(Parallel):
        def table(self, frames, codebooks):
            return np.zeros((frames, codebooks, 2), int)

    with pytest.raises(UserError, match="each of 3 codebooks of 5 frames once"):
        restore(Poor(), arrange(SCHEME, codes(3)))
