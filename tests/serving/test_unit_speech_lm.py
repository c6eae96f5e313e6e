"""A whole system with random weights: batched equals single, and what comes back has the right shapes and rules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.core.errors import UserError
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import pitch_predictor
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.quantizers.postprocess import Postprocess
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.serving.unit_speech_lm import UnitSpeechLM, padded, pitch_rows
from slm_jax.text.vocabulary import Vocabulary
from tests.contracts.checks import random_params

UNITS, HOP = 8, 320


@pytest.fixture(scope="module")
def system():
    rng = np.random.default_rng(0)
    centroids = jnp.asarray(rng.normal(size=(UNITS, 39)) * 10, jnp.float32)
    post = Postprocess(jnp.zeros(39), jnp.eye(39))
    lm = DecoderConfig(vocabulary=16, layers=1, width=16, heads=2, hidden=32, positions="rope", init_scale=0.5).make()
    lm_params = random_params(lm, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    vocoder = UnitVocoderConfig(
        units=UNITS,
        unit_dim=8,
        generator=ISTFTVocoderConfig(widths=(8, 8), blocks=(1, 1)),
        pitch_predictor=pitch_predictor(8),
    ).make()
    vocoder_params = meta.unbox(jax.jit(partial(initialise, vocoder))(jax.random.key(1)))["params"]
    return UnitSpeechLM(
        tokenizer=PhoneticTokenizer(MFCCFeaturesConfig(), None, post, centroids),
        vocabulary=Vocabulary(ranges=(("units", UNITS),)),
        lm=lm,
        lm_params=lm_params,
        vocoder=vocoder,
        vocoder_params=vocoder_params,
    )


def waveforms():
    rng = np.random.default_rng(1)
    return [0.1 * rng.normal(size=n).astype(np.float32) for n in (8000, 12_345, 400)]


def test_encoding_gives_runs_and_durations_of_every_frame(system):
    speech = system.encode(waveforms())
    for one, samples in zip(speech, waveforms(), strict=True):
        assert one.durations.sum() == (len(samples) - 400) // 320 + 1
        assert (np.diff(one.runs) != 0).all()
        assert one.runs.max() < UNITS
    with pytest.raises(UserError, match="shorter than one frame"):
        system.encode([np.zeros(399, np.float32)])


def test_continuations_hold_units_only_and_do_not_depend_on_neighbours(system):
    prompts = [np.array([1, 2, 3]), np.array([4, 5, 6, 7, 0])]
    sampling = SamplingConfig(max_new=12)
    keys = jax.random.split(jax.random.key(0), 2)
    made = system.generate(prompts, keys, sampling)
    for i, prompt in enumerate(prompts):
        alone = system.generate([prompt], keys[i : i + 1], sampling)[0]
        np.testing.assert_array_equal(made[i], alone)
        assert ((made[i] >= 0) & (made[i] < UNITS)).all()
        assert len(made[i]) <= 12


def test_speech_is_as_long_as_its_units_and_batched_equals_single(system):
    runs, durations = [np.array([1, 2, 3]), np.array([5, 0])], [np.array([3, 1, 9]), np.array([40, 41])]
    f0 = [(np.linspace(90, 180, n).astype(np.float32), np.arange(n) % 7 > 1) for n in (13, 81)]
    both = system.decode(runs, durations=durations, f0=f0)
    for i in range(2):
        assert len(both[i]) == durations[i].sum() * HOP
        alone = system.decode(runs[i : i + 1], durations=durations[i : i + 1], f0=f0[i : i + 1])[0]
        # the noise of the excitation is one row for all, so that a row alone hears the same
        np.testing.assert_allclose(both[i], alone, atol=1e-4)
    with pytest.raises(UserError, match="empty sequence"):
        system.decode([np.array([], int)])


def test_what_is_predicted_where_nothing_is_given_does_not_depend_on_neighbours(system):
    rng = np.random.default_rng(3)
    runs = [rng.integers(0, UNITS, size=size) for size in (4, 90, 33)]
    spoken = system.decode(runs)
    scale = max(1.0, max(float(np.abs(row).max()) for row in spoken))
    for row, units in zip(spoken, runs, strict=True):
        assert len(row) % HOP == 0
        assert len(row) >= len(units) * HOP
        alone = system.decode([units])[0]
        np.testing.assert_allclose(row / scale, alone / scale, atol=1e-5)


def test_log_probs_cover_the_end(system):
    scores = system.log_probs([np.array([1, 2, 3]), np.array([0])])
    assert [len(row) for row in scores] == [4, 2]
    assert all((row <= 0).all() for row in scores)


def test_padding_helpers():
    ids, mask = padded([np.array([1, 2]), np.array([3])], 4)
    np.testing.assert_array_equal(ids, [[1, 2, 0, 0], [3, 0, 0, 0]])
    assert mask.sum() == 3
    rows = pitch_rows([(np.array([100.0, 0.0]), np.array([True, False]))], 3)
    np.testing.assert_array_equal(rows["f0_hz"], [[100, 0, 0]])
    np.testing.assert_array_equal(rows["voiced"], [[True, False, False]])
