"""Counts of frames and masks."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.rates import (
    SSL_CONVS,
    centred_frame_count,
    conv_frames,
    frame_centres_s,
    frame_count,
    lengths_of,
    mask_of,
    receptive_field,
)


def test_frame_count_by_listing():
    for n in range(60):
        assert frame_count(n, 7, 3) == len([start for start in range(0, n, 3) if start + 7 <= n])


@pytest.mark.parametrize("n, frames", [(399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49), (160_000, 499)])
def test_ssl_grid(n, frames):
    assert conv_frames(n, SSL_CONVS) == frames == frame_count(n, 400, 320)
    assert receptive_field(SSL_CONVS) == (400, 320)


def test_counts_take_arrays():
    lengths = [0, 399, 720, 16_000]
    expected = [0, 0, 2, 49]
    np.testing.assert_array_equal(conv_frames(np.array(lengths), SSL_CONVS), expected)
    np.testing.assert_array_equal(conv_frames(jnp.array(lengths), SSL_CONVS), expected)
    np.testing.assert_array_equal(centred_frame_count(np.array(lengths), 160), [1, 3, 5, 101])


def test_masks_and_lengths_are_inverse():
    mask = mask_of(jnp.array([0, 2, 3]), 3)
    np.testing.assert_array_equal(mask, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(lengths_of(mask), [0, 2, 3])


def test_centres():
    np.testing.assert_allclose(frame_centres_s(3, 320, 16_000, 400), [0.0125, 0.0325, 0.0525])
