"""Average lagging: reading all first lags a whole clip, an even pace lags by what it waits."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.lagging import average_lagging


def test_reading_all_first_lags_as_long_as_the_clip_lasts():
    assert average_lagging([4.0] * 5, 4.0) == 4.0
    assert average_lagging([9.0], 4.0) == 4.0


def test_an_even_pace_lags_by_what_it_waits():
    assert average_lagging(np.arange(1, 9) * 0.5, 4.0) == pytest.approx(0.5)
    waited = np.minimum(np.arange(1, 9) * 0.5 + 1.0, 4.0)
    assert average_lagging(waited, 4.0) == pytest.approx(1.5)


def test_a_text_that_is_too_short_is_held_to_the_wanted_one():
    assert average_lagging([1.0, 2.0], 4.0) == pytest.approx(0.5)
    assert average_lagging([1.0, 2.0], 4.0, wanted=4) == pytest.approx(1.0)
    with pytest.raises(UserError, match="at least one token"):
        average_lagging([], 4.0)
