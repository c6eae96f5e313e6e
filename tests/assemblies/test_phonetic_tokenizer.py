"""The phonetic tokenizer: units of a waveform, chunks, and the saved artifact."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.assemblies import phonetic_tokenizer
from slm_jax.assemblies.phonetic_tokenizer import EncoderFeaturesConfig, MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.core.errors import UserError
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.nearest import assign
from slm_jax.quantizers.postprocess import PostprocessConfig
from tests.shapes import WHISPER

N, UNITS = 4000, 6
FEATURES = EncoderFeaturesConfig(
    encoder=SSLEncoderConfig(
        conv_layers=((8, 10, 5), (8, 8, 8), (8, 2, 2)),
        position=PositionalConvConfig(kernel=3, groups=1, weight_norm=False),
        layers=1,
        width=8,
        heads=2,
        hidden=16,
    ),
    layer=1,
)
HEARD = EncoderFeaturesConfig(encoder=WHISPER.encoder.replace(trim=True), layer=2)


@pytest.fixture(scope="module", autouse=True)
def short_chunks():
    """Chunks of one bucket, so that few shapes compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phonetic_tokenizer, "CHUNK", N)
        patch.setattr(phonetic_tokenizer, "LENGTH_BUCKET", N)
        yield


@pytest.fixture(scope="module")
def rows() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    mask = np.arange(N) < np.array([N, 2500])[:, None]
    loudness = np.repeat(rng.random((2, 10)), N // 10, axis=1)
    return jnp.asarray(rng.standard_normal((2, N)) * loudness * mask, jnp.float32), jnp.asarray(mask)


@pytest.fixture(scope="module", params=[FEATURES, HEARD], ids=["hubert", "whisper"])
def tokenizer(request, rows) -> PhoneticTokenizer:
    features = request.param
    params = meta.unbox(jax.jit(features.encoder.make().init)(jax.random.key(0), rows[0]))["params"]
    frames = jax.jit(features.extract)(params, *rows)
    real = np.asarray(frames.values)[np.asarray(frames.mask)]
    post = PostprocessConfig(normalise="standardise", smooth=3).fit(real)
    treated = post(frames)
    centroids = fit_kmeans(KMeansConfig(clusters=UNITS), treated.values[treated.mask]).centroids
    return PhoneticTokenizer(features, params, post, centroids)


def test_units_are_the_nearest_centroids_of_the_treated_frames(tokenizer, rows):
    codes = tokenizer.encode(*rows)
    frames = tokenizer.postprocess(jax.jit(tokenizer.features.extract)(tokenizer.params, *rows))
    mask = np.asarray(codes.mask)
    assert mask.sum(1).tolist() == [tokenizer.features.frame_count(n) for n in (N, 2500)]
    expected = assign(np.asarray(frames.values)[mask], tokenizer.centroids)
    np.testing.assert_array_equal(np.asarray(codes.ids)[mask][:, 0], expected)
    assert not np.asarray(codes.ids)[~mask].any()
    assert len(np.unique(expected)) == UNITS == tokenizer.units


def test_a_padded_row_gets_the_units_it_gets_alone(tokenizer, rows):
    samples, mask = rows
    together = tokenizer.encode(jnp.where(mask, samples, 7.0), mask)
    alone = tokenizer.encode(samples[1:, :2500], mask[1:, :2500])
    np.testing.assert_array_equal(together.ids[1, : alone.ids.shape[1]], alone.ids[0])


def test_long_recordings_are_read_in_chunks_without_overlap(tokenizer, rows):
    row = np.asarray(rows[0][0])
    too_short = row[:20] if tokenizer.features.frame_count(20) == 0 else row[:0]  # Whisper begins a frame at once
    units, once = tokenizer.encode_all([np.concatenate([row, row, too_short]), row])
    assert len(once) == tokenizer.features.frame_count(N)
    np.testing.assert_array_equal(units, np.concatenate([once, once]))
    with pytest.raises(UserError, match="shorter"):
        tokenizer.encode_all([too_short])


def test_saved_and_loaded_gives_the_same_units(tokenizer, rows, tmp_path):
    tokenizer.save(tmp_path)
    loaded = PhoneticTokenizer.load(tmp_path, tokenizer.params)
    assert loaded.features == tokenizer.features
    assert loaded.content_hash() == tokenizer.content_hash()
    np.testing.assert_array_equal(loaded.encode(*rows).ids, tokenizer.encode(*rows).ids)


def test_a_changed_artifact_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    with np.load(tmp_path / "tokenizer.npz") as stored:
        arrays = dict(stored)
    arrays["centroids"][0, 0] += 1e-3
    np.savez(tmp_path / "tokenizer.npz", **arrays)
    load = partial(PhoneticTokenizer.load, tmp_path, tokenizer.params)
    with pytest.raises(UserError, match="hash"):
        load()
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load()


@pytest.mark.parametrize("coefficients", [13, 39])
def test_mfcc_stand_on_the_frame_grid_of_hubert(coefficients, rows):
    frames = MFCCFeaturesConfig(coefficients=coefficients).extract(None, *rows)
    assert frames.values.shape == (2, 12, coefficients)
    assert frames.mask.sum(1).tolist() == [12, 7]  # floor((n - 400) / 320) + 1
    assert np.isfinite(np.asarray(frames.values)).all()


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(UserError, match="layer"):
        FEATURES.replace(layer=2)
    with pytest.raises(UserError, match="coefficients"):
        MFCCFeaturesConfig(coefficients=20)
    with pytest.raises(UserError, match="trim"):
        EncoderFeaturesConfig(encoder=WHISPER.encoder, layer=2)


def test_it_says_what_it_makes(tokenizer):
    assert tokenizer.spec.describe() == f"units {UNITS}; every {tokenizer.features.hop} samples at 16,000 Hz"
    assert tokenizer.spec.runs == ("runs",) and tokenizer.spec.durations == "durations"
