"""Intervals of means."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.intervals import bootstrap_interval


def test_it_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(1).normal(2.0, 1.0, 400).tolist()
    low, high = bootstrap_interval(values)
    reach = 1.96 * np.std(values) / 20
    assert low == pytest.approx(np.mean(values) - reach, abs=0.012)
    assert high == pytest.approx(np.mean(values) + reach, abs=0.012)


def test_it_holds_the_mean_nineteen_times_of_twenty():
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.binomial(1, 0.4, 60).astype(float).tolist(), seed, draws=400)
        inside += low <= 0.4 <= high
    assert 180 <= inside <= 198


def test_the_seed_decides_and_nothing_is_claimed_of_one_value():
    values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.3]
    assert bootstrap_interval(values, 4) == bootstrap_interval(values, 4)
    assert bootstrap_interval([1.0, 1.0]) == (1.0, 1.0)
    assert bootstrap_interval([]) is None and bootstrap_interval([1.0]) is None
    narrow, wide = bootstrap_interval(values, share=0.5), bootstrap_interval(values, share=0.99)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    with pytest.raises(UserError, match="share is 1"):
        bootstrap_interval(values, share=1.0)
