"""The prosodic tokenizer's arithmetic on small numbers, and its saved form."""

import math

import numpy as np
import pytest

from slm_jax.assemblies.phonetic_tokenizer import unit_spec
from slm_jax.assemblies.prosodic_tokenizer import (
    LEAST_STD,
    Heard,
    ProsodicTokenizer,
    ProsodyConfig,
    Voice,
    heard_in,
    quantile_edges,
    voice_of,
)
from slm_jax.core.errors import UserError

UNITS = np.array([7, 7, 3, 7], np.int32)
TRACK = np.array([100, 0, 120, 0, 0, 0, 200, 400, 300], np.float32)
"""Two values for each frame and one too many."""
VOICE = Voice(math.log(110), 0.5)


def tokenizer(**settings):
    config = ProsodyConfig(longest=1, bins=4, **settings)
    return ProsodicTokenizer(None, config, np.array([-0.5, 0.0, 0.5]), {"one": VOICE})


def test_a_run_has_the_mean_of_its_voiced_values():
    heard = heard_in(TRACK, UNITS, 2)
    np.testing.assert_allclose(heard.f0_hz, [110, 0, 300])
    logs = np.log([100, 120, 200, 400, 300])  # a voice is known from all that is heard
    np.testing.assert_allclose(heard.sums, [5, logs.sum(), np.square(logs).sum()])
    assert voice_of(heard.sums) == pytest.approx((logs.mean(), logs.std()))


def test_the_last_frames_may_have_no_pitch_left():
    np.testing.assert_allclose(heard_in(TRACK[:5], UNITS, 2).f0_hz, [110, 0, 0])


def test_a_voice_without_pitch_and_one_on_a_single_note():
    assert voice_of(np.zeros(3)) == (0.0, LEAST_STD)
    assert voice_of(np.array([4.0, 20.0, 100.0])) == (5.0, LEAST_STD)


def test_columns_of_an_utterance():
    made = tokenizer().columns(UNITS, heard_in(TRACK, UNITS, 2), "one")
    log_f0 = [0, 0, math.log(300 / 110)]
    np.testing.assert_array_equal(made["runs"], [7, 3, 7])
    np.testing.assert_array_equal(made["durations"], [2, 1, 1])
    np.testing.assert_array_equal(made["run_duration_class"], [1, 1, 1])
    np.testing.assert_allclose(made["run_log_f0"], log_f0, atol=1e-6)
    assert made["run_f0_class"].tolist()[1:] == [0, 4] and made["run_f0_class"][0] in (2, 3)  # it lies on the edge
    np.testing.assert_array_equal(made["log_f0"], np.repeat(made["run_log_f0"], made["durations"]))


def test_scaled_pitch_comes_back_to_hz():
    hz = np.array([0, 80, 100, 125, 160], np.float32)
    for scaled in (False, True):
        made = tokenizer(scaled=scaled)
        columns = made.columns(np.arange(5, dtype=np.int32), Heard(hz, np.zeros(3)), "one")
        expected = np.log(hz[1:] / 110) / (VOICE.std if scaled else 1)
        np.testing.assert_allclose(columns["run_log_f0"][1:], expected, atol=1e-5)
        np.testing.assert_array_equal(made.log_f0_of(np.arange(5)), np.array([0, -0.5, -0.25, 0.25, 0.5], np.float32))
        back = made.f0_hz_of(np.array([0, 3]), VOICE)
        np.testing.assert_allclose(back, [0, 110 * math.exp(0.25 * (VOICE.std if scaled else 1))], rtol=1e-6)


def test_edges_part_values_into_equal_shares():
    values = np.random.default_rng(0).standard_normal(1000)
    counts = np.bincount(np.searchsorted(quantile_edges(values, 8), values), minlength=8)
    np.testing.assert_array_equal(counts, 125)


def test_it_is_saved_and_loaded(tmp_path):
    before = tokenizer(continuous=("duration",))
    before.save(tmp_path)
    after = ProsodicTokenizer.load(tmp_path, None)
    assert after.config == before.config and after.voices == before.voices
    np.testing.assert_array_equal(after.edges, before.edges)
    with pytest.raises(UserError, match=r"has no prosody\.json"):
        ProsodicTokenizer.load(tmp_path / "elsewhere", None)


def test_pitch_that_does_not_keep_step_with_the_units_is_refused():
    assert ProsodyConfig().tracks_per_frame(unit_spec(8, hop=320)) == 4
    with pytest.raises(UserError, match=r"pitch\.rate_hz is 16000: the units are made at 24000 Hz"):
        ProsodyConfig().tracks_per_frame(unit_spec(8, hop=320).replace(rate_hz=24_000))
