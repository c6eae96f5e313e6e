"""The speaker encoder apart from parity with PyTorch: stretches of a clip, loudness, batches, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.encoders.speaker import SpeakerEmbedder, SpeakerEncoderConfig, _of_windows, mel_energies, raised
from tests.contracts.checks import random_params

TINY = SpeakerEncoderConfig(mels=8, width=8, layers=2, embedding=16, frames=20, stretches_per_s=10.0)
STRETCH = 3_200
"""Samples of 20 frames; a stretch begins every 1,600."""


@pytest.fixture(scope="module")
def params() -> dict:
    frames = Frames(jnp.zeros((1, 1, 8)), jnp.ones((1, 1), bool))
    return random_params(TINY.make(), jax.random.key(0), frames)


@pytest.fixture(scope="module")
def embed(params) -> SpeakerEmbedder:
    return SpeakerEmbedder(TINY, params, rows=4)


def noise(length: int, seed: int = 0, loudness: float = 0.3) -> np.ndarray:
    return (loudness * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)


def test_stretches_overlap_by_half_and_the_last_one_is_mostly_sound():
    config = SpeakerEncoderConfig()
    assert config.step == 77 * 160
    assert [len(config.starts(n)) for n in (1, 25_600, 31_519, 31_520, 16_000 * 10)] == [1, 1, 1, 2, 12]
    assert config.starts(31_520) == [0, 12_320], "0.75 of the second one"
    assert TINY.starts(2 * STRETCH) == [0, 1_600, 3_200]
    assert TINY.replace(coverage=0.5).starts(2 * STRETCH) == [0, 1_600, 3_200, 4_800]


def test_a_clip_has_one_vector_whatever_it_lies_beside(embed):
    """Seven stretches in batches of four and three, the last filled up; and each clip alone."""
    clips = [noise(length, seed) for seed, length in enumerate((700, 5_000, STRETCH, 9_000))]
    together = embed(clips)
    assert [len(TINY.starts(len(clip))) for clip in clips] == [1, 2, 1, 5]
    assert together.shape == (4, 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    assert np.abs(together[0] - together[3]).max() > 0.01
    for clip, vector in zip(clips, together, strict=True):
        np.testing.assert_allclose(embed([clip])[0], vector, atol=1e-5)
    assert embed([]).shape == (0, 16)


def test_a_longer_clip_is_the_mean_of_its_stretches(embed, params):
    """The second stretch, heard through the module alone; windows reach over its ends."""
    clip = noise(STRETCH + 1_600)
    padded = np.pad(clip, (200, 200))[None]
    apart = []
    for start in TINY.starts(len(clip)):
        energies = mel_energies(jnp.asarray(padded[:, start : start + TINY.reach]), TINY.mels)
        assert energies.shape == (1, 20, 8)
        apart.append(TINY.make().apply({"params": params}, Frames(energies, jnp.ones((1, 20), bool)))[0])
    mean = np.mean(apart, axis=0)
    np.testing.assert_allclose(embed([clip])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_soft_clips_are_raised_and_loud_ones_left(embed):
    soft, loud = noise(4_000, loudness=0.001), noise(4_000, loudness=0.1)
    assert np.sqrt(np.mean(raised(soft, -30.0) ** 2)) == pytest.approx(10**-1.5, rel=1e-4)
    np.testing.assert_array_equal(raised(loud, -30.0), loud)
    found = embed([soft, 10 * soft, loud])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_silence_has_a_finite_vector(embed):
    assert np.isfinite(embed([np.zeros(4_000, np.float32)])).all()


def test_few_programs_are_compiled(params):
    """Counts of stretches from one to seven in three shapes."""
    embed, before = SpeakerEmbedder(TINY.replace(loudness_dbfs=-29.0), params, rows=4), _of_windows._cache_size()
    for count in range(1, 8):
        embed([noise(STRETCH, seed) for seed in range(count)])
    assert _of_windows._cache_size() - before == 3


@pytest.mark.parametrize("clip", [np.zeros(0, np.float32), np.zeros((1, 400), np.float32)])
def test_what_is_no_row_of_samples_is_refused(embed, clip):
    with pytest.raises(UserError, match=r"shape of a clip is .*: must be \[N\]"):
        embed([noise(400), clip])


@pytest.mark.parametrize(
    "field, value",
    [("mels", 0), ("layers", 0), ("stretches_per_s", 0.5), ("stretches_per_s", 101.0), ("coverage", 0.0)],
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        SpeakerEncoderConfig(**{field: value})
    with pytest.raises(UserError, match="rows is 0"):
        SpeakerEmbedder(TINY, {}, rows=0)


def test_travels_as_json():
    assert from_json(TINY.to_json()) == TINY
