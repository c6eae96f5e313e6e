"""Scores of resynthesis on signals whose damage is known."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.resynthesis import (
    ResynthesisScores,
    f0_errors,
    griffin_lim_from_mel,
    log_mel_distance,
    mean_scores,
    score_resynthesis,
    stoi,
    voiced_share,
)

RATE = 16_000
TIME = np.arange(RATE) / RATE


def babble(hz=140.0):
    """A second of buzz with moving loudness and moving formants, half of it voiced."""
    phase = 2 * np.pi * np.cumsum(np.full(RATE, hz)) / RATE
    buzz = sum(np.sin(k * phase) * (1 + np.sin(2 * np.pi * (2 + 0.4 * k) * TIME)) / k for k in range(1, 24))
    hiss = np.random.default_rng(0).normal(size=RATE) * 0.3
    return (0.1 * np.where(TIME < 0.5, buzz, hiss)).astype(np.float32)


def noisy(level):
    return babble() + np.random.default_rng(1).normal(size=RATE).astype(np.float32) * level


def test_identity_is_perfect():
    scores = score_resynthesis(babble(), babble())
    assert scores.stoi == pytest.approx(1.0, abs=1e-6)
    assert scores.log_mel_distance == 0.0
    assert (scores.voicing_error, scores.f0_error_cents, scores.gross_f0_error) == (0.0, 0.0, 0.0)
    assert scores.voiced_share == scores.voiced_share_reference == pytest.approx(0.5, abs=0.05)


def test_more_noise_is_worse():
    quiet, loud = noisy(0.01), noisy(0.3)
    assert 1.0 > stoi(babble(), quiet) > stoi(babble(), loud)
    assert 0.0 < log_mel_distance(babble(), quiet) < log_mel_distance(babble(), loud)


def test_gain_is_a_constant_log_distance():
    loud = np.random.default_rng(2).normal(size=RATE).astype(np.float32) * 0.2
    assert log_mel_distance(loud, 0.5 * loud) == pytest.approx(np.log(2), abs=1e-3)


def test_raised_pitch_is_measured_in_cents():
    scores = score_resynthesis(babble(140.0), babble(140.0 * 2 ** (1 / 12)))
    assert scores.f0_error_cents == pytest.approx(100.0, abs=5.0)
    assert scores.gross_f0_error < 0.1


def test_f0_errors_by_hand():
    reference, made = np.array([100.0, 100.0, 0.0, 100.0]), np.array([200.0, 100.0, 100.0, 0.0, 50.0])
    assert f0_errors(reference, made) == (600.0, 0.5)
    assert f0_errors(np.zeros(3), made) == (None, None)


def test_griffin_lim_is_intelligible_but_not_exact():
    rebuilt = griffin_lim_from_mel(babble())
    assert rebuilt.shape == (RATE,)
    score = stoi(babble(), rebuilt)
    assert 0.6 < score < 0.999
    assert log_mel_distance(babble(), rebuilt) < log_mel_distance(babble(), noisy(0.3))


def test_voiced_share_of_silence():
    assert voiced_share(np.zeros(8000, np.float32)) == 0.0


def test_mean_leaves_out_what_is_missing():
    one = score_resynthesis(babble(), babble())
    other = ResynthesisScores(**{**one.to_json(), "stoi": 0.5, "f0_error_cents": None})
    mean = mean_scores([one, other])
    assert mean["stoi"] == pytest.approx(0.75, abs=1e-6)
    assert mean["f0_error_cents"] == 0.0


def test_too_short_for_stoi():
    with pytest.raises(UserError, match="not enough speech"):
        stoi(babble()[:2000], babble()[:2000])
    with pytest.raises(UserError, match="samples"):
        log_mel_distance(np.zeros(0), babble())


def test_where_there_is_too_little_speech_for_stoi_the_other_scores_stay():
    short = score_resynthesis(babble()[:3200], babble()[:3200])
    assert short.stoi is None
    assert short.log_mel_distance == 0.0
    assert mean_scores([short, score_resynthesis(babble(), babble())])["stoi"] == pytest.approx(1.0, abs=1e-6)
    assert mean_scores([short])["stoi"] is None
