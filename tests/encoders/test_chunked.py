"""Clips in windows against each window alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.chunked import ChunkedEncoderConfig, in_windows, windows_of
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

WINDOW = 1_500
LENGTHS = (4_000, 3_000, 1_000, 3_020)
"""A rest of 1,000 samples; no rest; less than a window; a rest too short for a frame of the waveform's."""
MASK = jnp.arange(4_000) < jnp.array(LENGTHS)[:, None]
SAMPLES = jnp.where(MASK, 0.1 * jax.random.normal(jax.random.key(0), (4, 4_000)), jnp.nan)


def test_windows_cover_a_clip_once():
    assert windows_of(10, 4) == ((0, 4), (4, 8), (8, 10))
    assert windows_of(8, 4) == ((0, 4), (4, 8))
    assert windows_of(3, 4) == ((0, 3),)
    pieces = in_windows(jnp.arange(1, 11)[None], 4)
    assert pieces.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_frames_are_those_of_each_window_alone(name):
    inner = ENCODERS[name]
    config = ChunkedEncoderConfig(encoder=inner, window=WINDOW)
    params = random_params(config.make(), jax.random.key(1), SAMPLES[:, :WINDOW])
    out = jax.jit(lambda p: config.make().apply({"params": p}, SAMPLES, MASK, collect=True))(params)
    alone = jax.jit(lambda p, x: inner.make().apply({"params": p}, x, collect=True))
    assert out.mask.sum(1).tolist() == [config.frame_count(n) for n in LENGTHS]
    assert out.values.shape[1] == config.frame_count(4_000)
    for row, length in enumerate(LENGTHS):
        parts = [slice(*ends) for ends in windows_of(length, WINDOW) if inner.frame_count(ends[1] - ends[0])]
        whole = [alone(params["encoder"], SAMPLES[row : row + 1, part]) for part in parts]
        frames = config.frame_count(length)
        values, features = (jnp.concatenate([getattr(o, n) for o in whole], 1)[0] for n in ("values", "features"))
        hidden = jnp.concatenate([o.hidden for o in whole], 2)[:, 0]
        assert len(values) == frames
        assert bool(out.mask[row, :frames].all()), "real frames come first"
        np.testing.assert_allclose(out.values[row, :frames], values, atol=1e-5)
        np.testing.assert_allclose(out.features[row, :frames], features, atol=1e-5)
        np.testing.assert_allclose(out.hidden[:, row, :frames], hidden, atol=1e-5)


def test_a_clip_of_one_window_is_the_encoders_own():
    inner = ENCODERS["waveform"]
    config = ChunkedEncoderConfig(encoder=inner, window=WINDOW)
    samples = 0.1 * jax.random.normal(jax.random.key(3), (1, 1_400))
    params = random_params(config.make(), jax.random.key(1), samples)
    ours = jax.jit(lambda p: config.make().apply({"params": p}, samples, layer=1).values)(params)
    wanted = jax.jit(lambda p: inner.make().apply({"params": p}, samples, layer=1).values)(params["encoder"])
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


def test_says_what_its_encoder_says_and_travels_as_json():
    config = ChunkedEncoderConfig(encoder=ENCODERS["waveform"])
    assert (config.window, config.layers, config.width, config.hop) == (480_000, 2, 16, 80)
    assert from_json(config.to_json()) == config
    with pytest.raises(UserError, match="window is 100: must hold at least one frame"):
        config.replace(window=100)
