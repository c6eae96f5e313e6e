"""Percentiles and real-time factors."""

import pytest

from slm_jax.evaluation.latency import percentiles, real_time_factor


def test_percentiles():
    found = percentiles([0.1 * i for i in range(11)], prefix="first_")
    assert found["first_p50"] == pytest.approx(0.5) and found["first_p90"] == pytest.approx(0.9)
    assert percentiles([]) == {"p50": None, "p90": None, "p99": None, "mean": None}


def test_the_real_time_factor_is_over_all_speech():
    assert real_time_factor([1.0, 1.0], [1.0, 3.0]) == 0.5
    assert real_time_factor([1.0], [0.0]) is None
