"""Manner of speech in figures, on runs whose figures are known."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.prosody import Runs, correlation, least_error, pitch_error, style_of

NAN = np.nan


def runs(frames, log_f0, usual=1.0):
    return Runs(np.array(frames, np.int32), np.array(log_f0, np.float64), np.full(len(frames), usual))


def test_the_style_counts_frames_and_leaves_out_the_unvoiced():
    style = style_of(runs([1, 3, 2], [0.4, 0.0, NAN], usual=3.0))
    assert style.pitch == pytest.approx(0.1)
    assert style.spread == pytest.approx(np.std([0.4, 0.0, 0.0, 0.0]))
    assert style.tempo == 1.5


def test_a_stretch_without_voice_has_no_pitch():
    style = style_of(runs([2, 4], [NAN, NAN]))
    assert np.isnan(style.pitch)
    assert style.tempo == pytest.approx(1 / 3)
    assert np.isnan(style_of(runs([], [])).tempo)


def test_errors_are_of_runs_that_are_voiced_on_both_sides():
    real = runs([1, 1, 1], [0.1, NAN, 0.3])
    assert pitch_error(runs([1, 1], [0.3, 0.9]), real) == pytest.approx(0.2)
    assert np.isnan(pitch_error(runs([1, 1], [NAN, 0.9]), real))
    assert least_error([runs([1], [0.3]), runs([1], [0.15]), runs([1], [NAN])], real) == pytest.approx(0.05)


def test_a_correlation_and_its_interval():
    rng = np.random.default_rng(0)
    first = rng.normal(size=200)
    second = 0.8 * first + 0.6 * rng.normal(size=200)
    found = correlation(first, second)
    assert found.value == pytest.approx(np.corrcoef(first, second)[0, 1])
    assert found.interval[0] < 0.8 < found.interval[1]
    unrelated = correlation(first, np.roll(second, 1))
    assert unrelated.interval[0] < 0 < unrelated.interval[1]


def test_pairs_that_are_not_known_are_left_out():
    found = correlation([1.0, NAN, 2.0, 3.0], [2.0, 1.0, 4.0, 6.0])
    assert found.value == pytest.approx(1.0)
    assert found.items == 3
    assert correlation([1.0, NAN], [1.0, 1.0]).value is None
    with pytest.raises(UserError, match=r"items is \(1, 2\): as many of both"):
        correlation([1.0], [1.0, 2.0])
