"""Units and durations to frames."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.decoders.length import frame_index, frames_from_log, regulate


def test_regulate_repeats_and_masks_like_numpy():
    rng = np.random.default_rng(0)
    durations, lengths = rng.integers(1, 5, size=(3, 6)), np.array([6, 3, 1])
    mask = np.arange(6) < lengths[:, None]
    values = rng.normal(size=(3, 6, 2)).astype(np.float32)
    out, real = jax.jit(regulate, static_argnums=3)(jnp.asarray(values), jnp.asarray(durations), jnp.asarray(mask), 30)
    for row, length in enumerate(lengths):
        expected = np.repeat(values[row, :length], durations[row, :length], axis=0)
        assert int(real[row].sum()) == len(expected)
        np.testing.assert_array_equal(out[row, : len(expected)], expected)
        assert not np.asarray(out[row, len(expected) :]).any()


def test_beyond_capacity_is_cut_and_zero_durations_are_skipped():
    units = jnp.array([[7, 8, 9]])
    out, real = regulate(units, jnp.array([[2, 0, 5]]), jnp.ones((1, 3), bool), 4)
    assert out.tolist() == [[7, 7, 9, 9]]
    assert real.all()
    index, real = frame_index(jnp.zeros((1, 3), int), jnp.ones((1, 3), bool), 2)
    assert not real.any()
    assert index.max() <= 2


def test_frames_from_log_is_at_least_one_where_real():
    log_durations = jnp.log1p(jnp.array([[0.2, 3.4, 3.6, 8.0]]))
    frames = frames_from_log(log_durations, jnp.array([[True, True, True, False]]))
    assert frames.tolist() == [[1, 3, 4, 0]]
