"""The treatment of frames before k-means, against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.quantizers.postprocess import PostprocessConfig


@pytest.fixture
def frames() -> Frames:
    """Two rows of correlated frames, the second padded with NaN."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((2, 40, 4)) * [1, 5, 0.1, 3]) @ rng.standard_normal((4, 4)) + 2
    mask = np.arange(40) < np.array([40, 25])[:, None]
    return Frames(jnp.asarray(np.where(mask[..., None], values, np.nan), jnp.float32), jnp.asarray(mask))


def real_rows(frames: Frames) -> np.ndarray:
    return np.asarray(frames.values)[np.asarray(frames.mask)]


def treated(frames: Frames, **settings) -> Frames:
    return PostprocessConfig(**settings).fit(real_rows(frames))(frames)


@pytest.mark.parametrize("window", [3, 7])
def test_smoothing_averages_the_real_frames_around_each(frames, window):
    smoothed = treated(frames, smooth=window)
    for row, length in enumerate((40, 25)):
        real = np.asarray(frames.values)[row, :length]
        expected = [real[max(0, t - window // 2) : t + window // 2 + 1].mean(0) for t in range(length)]
        np.testing.assert_allclose(smoothed.values[row, :length], expected, rtol=1e-5, atol=1e-5)
        assert not np.asarray(smoothed.values[row, length:]).any()


def test_standardised_frames_have_no_mean_and_unit_deviation(frames):
    rows = real_rows(treated(frames, normalise="standardise"))
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(rows.std(0), 1, atol=1e-4)


def test_whitened_frames_have_the_identity_as_covariance(frames):
    rows = real_rows(treated(frames, normalise="whiten"))
    np.testing.assert_allclose(np.cov(rows, rowvar=False), np.eye(4), atol=5e-3)


def test_layer_norm_treats_each_frame_alone(frames):
    rows = real_rows(treated(frames, normalise="layer_norm"))
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(1), 1, atol=1e-3)


def test_none_leaves_real_frames_as_they_are(frames):
    np.testing.assert_array_equal(real_rows(treated(frames)), real_rows(frames))


def test_a_dimension_that_never_varied_is_not_blown_up():
    post = PostprocessConfig(normalise="standardise").fit(np.array([[3.0, 1.0], [3.0, 2.0]], np.float32))
    np.testing.assert_allclose(post.scale, np.diag([1.0, 2.0]))


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(UserError, match="smooth"):
        PostprocessConfig(smooth=2)
