"""The phonetic tokenizer: units of a waveform, chunks, and the saved artifact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.assemblies.phonetic_tokenizer import (
    PhoneticTokenizer,
    PhoneticTokenizerConfig,
    fit_phonetic_tokenizer,
)
from slm_jax.core.errors import UserError
from slm_jax.core.types import Waveform
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.nearest import assign
from slm_jax.quantizers.postprocess import PostprocessConfig

N = 4000
ENCODER = SSLEncoderConfig(
    conv_layers=((8, 10, 5), (8, 3, 2), (8, 3, 2), (8, 4, 4), (8, 4, 4)),
    position=PositionalConvConfig(kernel=3, groups=1, weight_norm=False),
    layers=2,
    width=8,
    heads=2,
    hidden=16,
)
CONFIG = PhoneticTokenizerConfig(
    encoder=ENCODER,
    layer=1,
    units=6,
    postprocess=PostprocessConfig(normalise="standardise", smooth=3),
    chunk_samples=N,
)


@pytest.fixture(scope="module")
def waveform() -> Waveform:
    rng = np.random.default_rng(0)
    mask = np.arange(N) < np.array([N, 2500, 3100])[:, None]
    loudness = np.repeat(rng.random((3, 10)), N // 10, axis=1)
    return Waveform(jnp.asarray(rng.standard_normal((3, N)) * loudness * mask, jnp.float32), jnp.asarray(mask))


@pytest.fixture(scope="module")
def tokenizer(waveform) -> PhoneticTokenizer:
    params = meta.unbox(jax.jit(ENCODER.make().init)(jax.random.key(0), waveform.samples))["params"]
    return fit_phonetic_tokenizer(CONFIG, params, [waveform], KMeansConfig(starts=2))


def test_units_are_the_nearest_centroids_of_the_treated_frames(tokenizer, waveform):
    codes, frames = tokenizer.encode(waveform), tokenizer.features(waveform)
    mask = np.asarray(frames.mask)
    assert codes.ids.shape == (3, ENCODER.frame_count(N), 1)
    assert mask.sum(1).tolist() == [ENCODER.frame_count(n) for n in (N, 2500, 3100)]
    expected = assign(np.asarray(frames.values)[mask], tokenizer.centroids)
    np.testing.assert_array_equal(np.asarray(codes.ids)[mask][:, 0], expected)
    assert not np.asarray(codes.ids)[~mask].any()
    assert len(np.unique(expected)) == CONFIG.units


def test_a_padded_row_gets_the_units_it_gets_alone(tokenizer, waveform):
    noisy = jnp.where(waveform.mask, waveform.samples, 7.0)
    together = tokenizer.encode(Waveform(noisy, waveform.mask))
    alone = tokenizer.encode_long(np.asarray(waveform.samples[1, :2500]))
    np.testing.assert_array_equal(together.ids[1, : alone.ids.shape[1]], alone.ids[0])


def test_long_recordings_are_read_in_chunks_without_overlap(tokenizer, waveform):
    row = np.asarray(waveform.samples[0])
    tail = row[:20]  # too short for a frame: left out
    codes = tokenizer.encode_long(np.concatenate([row, row, tail]))
    once = tokenizer.encode_long(row)
    np.testing.assert_array_equal(codes.ids, np.concatenate([once.ids, once.ids], axis=1))
    with pytest.raises(UserError, match="shorter"):
        tokenizer.encode_long(tail)


def test_saved_and_loaded_gives_the_same_units(tokenizer, waveform, tmp_path):
    tokenizer.save(tmp_path)
    loaded = PhoneticTokenizer.load(tmp_path)
    assert loaded.config == CONFIG
    assert loaded.content_hash() == tokenizer.content_hash()
    np.testing.assert_array_equal(loaded.encode(waveform).ids, tokenizer.encode(waveform).ids)


def test_a_changed_artifact_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    with np.load(tmp_path / "tokenizer.npz") as stored:
        arrays = dict(stored)
    arrays["centroids"][0, 0] += 1e-3
    np.savez(tmp_path / "tokenizer.npz", **arrays)
    with pytest.raises(UserError, match="hash"):
        PhoneticTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        PhoneticTokenizer.load(tmp_path)


def test_wrong_settings_are_refused_by_name(tokenizer, waveform):
    with pytest.raises(UserError, match="layer"):
        CONFIG.replace(layer=3)
    with pytest.raises(UserError, match="chunk_samples"):
        CONFIG.replace(chunk_samples=10)
    with pytest.raises(UserError, match="centroids"):
        CONFIG.make(tokenizer.params, tokenizer.centroids[:3], tokenizer.statistics)
    with pytest.raises(UserError, match="statistics"):
        CONFIG.make(tokenizer.params, tokenizer.centroids)
    with pytest.raises(UserError, match="rate_hz"):
        tokenizer.encode(Waveform(waveform.samples, waveform.mask, 8_000))
