"""What is left of F0, with known answers."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.pitch_codes import code_use, pitch_kept

REAL = [np.asarray([0, 100, 110, 120, 0, 130], np.float32), np.asarray([200, 210, 0, 0], np.float32)]


def test_the_same_track_is_kept_whole():
    kept = pitch_kept(REAL, REAL)
    assert kept.correlation == pytest.approx(1) and (kept.cents, kept.gross, kept.voicing_error) == (0, 0, 0)
    assert kept.values == 6


def test_a_semitone_is_a_hundred_cents_and_a_voice_is_no_correlation():
    kept = pitch_kept([track * 2 ** (1 / 12) for track in REAL], REAL)
    assert kept.correlation == pytest.approx(1) and kept.cents == pytest.approx(100, rel=1e-5) and kept.gross == 0
    flat = pitch_kept([np.where(track > 0, track[track > 0].mean(), 0) for track in REAL], REAL)
    assert abs(flat.correlation) < 0.2


def test_voicing_gross_errors_and_lengths_are_counted():
    made = [REAL[0].copy(), np.asarray([200, 0, 150], np.float32)]
    made[0][1] = 140.0
    kept = pitch_kept(made, REAL)
    assert kept.voicing_error == pytest.approx(2 / 9) and kept.values == 5 and kept.gross == pytest.approx(1 / 5)


def test_nothing_voiced_gives_nothing_and_unequal_lists_are_refused():
    silent = [np.zeros(4, np.float32)]
    assert np.isnan(pitch_kept(silent, silent).correlation) and pitch_kept(silent, silent).voicing_error == 0
    with pytest.raises(UserError, match="as many of both"):
        pitch_kept(REAL, REAL[:1])


def test_codes_that_come_alike_often_have_their_number_as_perplexity():
    use = code_use([np.asarray([0, 1, 1]), np.asarray([0, 3, 3])], 8)
    assert (use.used, use.perplexity) == (3, pytest.approx(3))
    assert code_use([np.zeros(5, int)], 8).perplexity == pytest.approx(1)
