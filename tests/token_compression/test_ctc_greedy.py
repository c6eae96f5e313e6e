"""Greedy collapse against its definition, on NumPy and on device."""

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.token_compression.ctc_greedy import collapsed
from tests.token_compression.ctc_paths import said


def test_it_is_the_definition_and_keeps_static_shapes():
    rng = np.random.default_rng(0)
    for blank in (0, 2):
        labels = rng.integers(0, 3, (60, 12)).astype(np.int32)
        mask = np.arange(12) < rng.integers(0, 13, 60)[:, None]
        ids, kept = collapsed(labels, mask, blank)
        assert isinstance(ids, np.ndarray) and ids.dtype == np.int32 and ids.shape == kept.shape == (60, 12)
        for row in range(60):
            assert ids[row][kept[row]].tolist() == said(tuple(labels[row][mask[row]]), blank)
            assert not ids[row][~kept[row]].any()
        on_device = jax.jit(collapsed, static_argnums=2)(jnp.asarray(labels), jnp.asarray(mask), blank)
        np.testing.assert_array_equal(on_device[0], ids)
        np.testing.assert_array_equal(on_device[1], kept)


def test_a_blank_separates_equal_labels():
    ids, kept = collapsed(np.array([[3, 3, 0, 3, 0, 0, 1]]), np.ones((1, 7), bool))
    assert ids[kept].tolist() == [3, 3, 1]
