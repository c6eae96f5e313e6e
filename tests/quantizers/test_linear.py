"""Units by a classifier: what becomes of the blank."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.quantizers.linear import LinearQuantizerConfig, narrowing, without_blanks

BLANK = 9
IDS = np.asarray([[BLANK, BLANK, 3, BLANK, 4, 7], [5, BLANK, BLANK, 2, 8, 8], [BLANK, BLANK, BLANK, 6, 6, 6]])
LENGTHS = (5, 3, 3)
WANTED = [[3, 3, 3, 3, 4, 0], [5, 5, 5, 0, 0, 0], [0, 0, 0, 0, 0, 0]]


def test_a_blank_is_the_unit_before_it_or_else_the_first_that_follows_in_its_own_row():
    mask = jnp.arange(6) < jnp.asarray(LENGTHS)[:, None]
    np.testing.assert_array_equal(without_blanks(jnp.asarray(IDS), mask, BLANK), WANTED)
    for row, length in enumerate(LENGTHS):
        alone = without_blanks(jnp.asarray(IDS[row : row + 1, :length]), jnp.ones((1, length), bool), BLANK)
        np.testing.assert_array_equal(alone[0], WANTED[row][:length])


def test_the_published_form_narrows_towards_the_units():
    assert narrowing(768, 500, 768) == LinearQuantizerConfig().hidden
    with pytest.raises(UserError, match="units is 0"):
        LinearQuantizerConfig(units=0)
    with pytest.raises(UserError, match="hidden"):
        LinearQuantizerConfig(hidden=(4, 0))
