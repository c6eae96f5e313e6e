"""Windows of long recordings: nothing is lost, none is too long, and cuts lie where it is quiet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.audio.windows import quiet_windows
from slm_jax.core.errors import UserError

RATE = 1_000  # a block of 100 samples


@given(st.integers(1, 12_000), st.integers(100, 3_000), st.integers(0, 9))
def test_windows_follow_each_other_and_none_is_too_long(count, window, seed):
    samples = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    found = quiet_windows(samples, window, RATE)
    assert found[0][0] == 0 and found[-1][1] == count
    assert all(end == start for (_, end), (start, _) in zip(found, found[1:], strict=False))
    assert all(0 < end - start <= window for start, end in found)
    shortest = window - max(window // 6, 100)  # all but the last are cut in their last sixth
    assert all(end - start >= shortest for start, end in found[:-1])
    assert len(found) == 1 or count > window


@given(st.integers(3_050, 3_550))
def test_the_cut_is_in_the_middle_of_the_only_pause(middle):
    samples = np.ones(7_000, np.float32)
    samples[middle - 50 : middle + 50] = 0.0
    assert quiet_windows(samples, 3_600, RATE)[0] == (0, middle)


def test_a_pause_before_the_last_sixth_is_not_looked_for():
    samples = np.ones(7_000, np.float32)
    samples[1_000:1_500] = 0.0
    ((_, end), *_) = quiet_windows(samples, 3_600, RATE)
    assert end > 3_000


def test_equally_quiet_places_take_the_first_and_silence_has_an_end():
    assert quiet_windows(np.zeros(5_000, np.float32), 3_600, RATE) == [(0, 3_050), (3_050, 5_000)]


def test_what_fits_is_one_window():
    assert quiet_windows(np.zeros(3_600, np.float32), 3_600, RATE) == [(0, 3_600)]


def test_a_window_shorter_than_a_block_is_refused():
    with pytest.raises(UserError, match="window is 99: samples, at least a tenth of a second"):
        quiet_windows(np.zeros(500, np.float32), 99, RATE)
