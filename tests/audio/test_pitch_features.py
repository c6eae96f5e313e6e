"""F0 as networks read it: relative to the mean of voiced values, and back."""

import numpy as np
import pytest

from slm_jax.audio.pitch_features import PitchFeaturesConfig
from slm_jax.core.errors import UserError

TRACK = np.asarray([0, 100, 0, 0, 400, 0], np.float32)


@pytest.mark.parametrize("scale", ["log", "hz"])
def test_voiced_values_lie_around_their_mean_and_come_back(scale):
    features = PitchFeaturesConfig(scale=scale, spread=0.5)
    values, voicing = features.read(TRACK).T
    voiced = TRACK > 0
    np.testing.assert_array_equal(voicing, voiced)
    assert values[voiced].sum() == pytest.approx(0, abs=1e-4) and not values[~voiced].any()
    assert features.mean(TRACK) == pytest.approx({"log": np.log(200), "hz": 250}[scale])
    np.testing.assert_allclose(features.f0_hz(values, features.mean(TRACK))[voiced], TRACK[voiced], rtol=1e-6)


def test_the_gaps_may_be_filled_by_straight_lines():
    values = PitchFeaturesConfig(scale="hz", spread=1.0, interpolated=True).read(TRACK)[:, 0]
    np.testing.assert_allclose(values, [-150, -150, -50, 50, 150, 150])


@pytest.mark.parametrize("interpolated", [False, True])
def test_silence_is_0(interpolated):
    features = PitchFeaturesConfig(interpolated=interpolated)
    assert not features.read(np.zeros(5, np.float32)).any() and features.mean(np.zeros(5, np.float32)) == 0.0
    assert features.read(np.zeros(0, np.float32)).shape == (0, 2)


def test_a_register_changes_nothing_of_log_f0_alone():
    higher = (TRACK * 1.2).astype(np.float32)
    log, hz = PitchFeaturesConfig(), PitchFeaturesConfig(scale="hz")
    np.testing.assert_allclose(log.read(higher), log.read(TRACK), atol=1e-5)
    assert np.abs(hz.read(higher) - hz.read(TRACK)).max() > 1


def test_a_spread_of_0_is_refused():
    with pytest.raises(UserError, match="spread is 0"):
        PitchFeaturesConfig(spread=0.0)
