"""The phone classifier learns made-up phones, is sure of them and unsure of noise."""

import jax
import numpy as np
import pytest

from slm_jax.audio.rates import frame_count
from slm_jax.core.errors import UserError
from slm_jax.evaluation.phone_classifier import PhoneClassifier, PhoneClassifierConfig, posterior_statistics

RATE = 16_000
FORMANTS = ((300, 2300), (700, 1200), (350, 800))
CONFIG = PhoneClassifierConfig(phones=4, hidden=32, context=1, steps=150, batch=128)


def utterance(seed):
    """A second of vowels in random order with a little noise, and its labels; 3 is silence, the first frame free."""
    generator = np.random.default_rng(seed)
    phones = generator.integers(0, 4, 10)
    time = np.arange(RATE // 10) / RATE
    parts = [sum(np.sin(2 * np.pi * f * time) for f in FORMANTS[p]) if p < 3 else 0 * time for p in phones]
    samples = 0.1 * np.concatenate(parts) + generator.normal(size=RATE) * 0.003
    labels = phones[np.minimum((200 + 320 * np.arange(frame_count(RATE, 400, 320))) // 1600, 9)]
    labels[0] = -1
    return samples.astype(np.float32), labels.astype(np.int32)


@pytest.fixture(scope="module")
def classifier():
    return CONFIG.make().fit([utterance(seed) for seed in range(8)], jax.random.key(0))


def test_learns(classifier):
    held_out = [utterance(seed) for seed in range(100, 104)]
    assert classifier.accuracy(held_out) > 0.9
    chance = max(np.bincount(np.concatenate([labels[1:] for _, labels in held_out]))) / (4 * 48)
    assert chance < 0.5


def test_posteriors(classifier):
    posterior = classifier.posterior(utterance(5)[0])
    assert posterior.shape == (49, 4)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, atol=1e-5)
    shorter = classifier.posterior(utterance(5)[0][:8000])
    np.testing.assert_allclose(shorter[:20], posterior[:20], atol=1e-4)


def test_linear_form_learns_too():
    linear = CONFIG.replace(hidden=0).make().fit([utterance(seed) for seed in range(4)], jax.random.key(0))
    assert set(linear.params) == {"kernel_0", "bias_0"}
    assert linear.accuracy([utterance(50)]) > 0.8


def test_same_key_same_classifier(classifier):
    again = CONFIG.make().fit([utterance(seed) for seed in range(8)], jax.random.key(0))
    assert all(np.array_equal(again.params[name], classifier.params[name]) for name in again.params)


def test_save_and_load(classifier, tmp_path):
    classifier.save(tmp_path / "classifier.npz")
    loaded = PhoneClassifier.load(tmp_path / "classifier.npz")
    assert loaded.config == CONFIG
    np.testing.assert_array_equal(loaded.posterior(utterance(5)[0]), classifier.posterior(utterance(5)[0]))


def test_statistics_by_hand():
    sure, torn = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])
    statistics = posterior_statistics([sure, torn])
    assert statistics.mean_highest == 0.75
    assert statistics.entropy == pytest.approx(np.log(2) / 2)
    assert statistics.frames == 2


def test_surer_of_vowels_than_of_their_mixture(classifier):
    clear = posterior_statistics([classifier.posterior(utterance(7)[0])])
    blurred = posterior_statistics([classifier.posterior(utterance(7)[0] + utterance(8)[0] + utterance(9)[0])])
    assert clear.mean_highest > blurred.mean_highest
    assert clear.entropy < blurred.entropy


def test_errors():
    with pytest.raises(UserError, match="label"):
        CONFIG.replace(phones=2).make().fit([utterance(0)], jax.random.key(0))
    with pytest.raises(UserError, match="labelled frames"):
        CONFIG.make().fit([], jax.random.key(0))
    with pytest.raises(UserError, match="phones"):
        PhoneClassifierConfig(phones=1)
