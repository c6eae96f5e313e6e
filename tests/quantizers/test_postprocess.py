"""The treatment of frames before k-means, against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.quantizers.postprocess import (
    PostprocessConfig,
    fit_statistics,
    identity_statistics,
    postprocess,
    smooth_frames,
)


@pytest.fixture
def frames() -> Frames:
    values = np.random.default_rng(0).standard_normal((2, 9, 4)) * [1, 5, 0.1, 3] + 2
    mask = np.arange(9) < np.array([9, 5])[:, None]
    return Frames(jnp.asarray(np.where(mask[..., None], values, np.nan), jnp.float32), jnp.asarray(mask))


@pytest.mark.parametrize("window", [1, 3, 5])
def test_smoothing_averages_the_real_frames_around_each(frames, window):
    smoothed = smooth_frames(frames.values, frames.mask, window)
    for row, length in enumerate((9, 5)):
        real = np.asarray(frames.values)[row, :length]
        for t in range(length):
            around = real[max(0, t - window // 2) : t + window // 2 + 1]
            np.testing.assert_allclose(smoothed[row, t], around.mean(0), rtol=1e-5, atol=1e-6)
        assert not np.asarray(smoothed[row, length:]).any()


def test_standardised_frames_have_no_mean_and_unit_deviation(frames):
    mask = np.asarray(frames.mask)
    statistics = fit_statistics(np.asarray(frames.values)[mask])
    treated = postprocess(PostprocessConfig(normalise="standardise"), frames, statistics)
    rows = np.asarray(treated.values)[mask]
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(0), 1, atol=1e-5)


def test_layer_norm_treats_each_frame_alone(frames):
    treated = postprocess(PostprocessConfig(normalise="layer_norm"), frames)
    rows = np.asarray(treated.values)[np.asarray(frames.mask)]
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(1), 1, atol=1e-3)


def test_none_leaves_real_frames_as_they_are(frames):
    mask = np.asarray(frames.mask)
    treated = postprocess(PostprocessConfig(), frames, identity_statistics(4))
    np.testing.assert_array_equal(np.asarray(treated.values)[mask], np.asarray(frames.values)[mask])


def test_a_dimension_that_never_varies_stays_finite():
    statistics = fit_statistics(np.array([[3.3, 1.0], [3.3, 2.0]], np.float32))
    assert statistics.std.tolist() == [1.0, 0.5]


def test_wrong_settings_are_refused_by_name(frames):
    with pytest.raises(UserError, match="normalise"):
        PostprocessConfig(normalise="whiten")
    with pytest.raises(UserError, match="smooth"):
        PostprocessConfig(smooth=2)
    with pytest.raises(UserError, match="statistics"):
        postprocess(PostprocessConfig(normalise="standardise"), frames)
