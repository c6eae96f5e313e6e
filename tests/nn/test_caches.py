"""Caches alone: who is kept and who is seen. With a decoder around them: `sequence_models/test_decoder_window`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.caches import empty_cache, empty_context, empty_ring

W, TOTAL = 4, 22
append = jax.jit(lambda cache, x, real: cache.append(x[..., None, None], -x[..., None, None], real))


def test_a_growing_cache_packs_real_entries_and_drops_what_does_not_fit():
    mask = jnp.array([[0, 1, 0, 1], [1, 1, 1, 1]], bool)
    cache, keys, values, sees = append(empty_cache(2, 3, 1, 1, jnp.float32), jnp.arange(1.0, 9.0).reshape(2, 4), mask)
    assert cache.length.tolist() == [2, 3]
    assert cache.keys[:, 0, :, 0].tolist() == keys[:, 0, :, 0].tolist() == [[2, 4, 0], [5, 6, 7]]
    assert values[0, 0, :2, 0].tolist() == [-2, -4]
    assert sees[0].astype(int).tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert cache.reset(jnp.array([True, False])).length.tolist() == [0, 3]


def seen(keys, values, sees):
    """The names of the entries that each new entry sees, sorted, one list per row and entry."""
    keys, values, sees = np.asarray(keys)[:, 0, :, 0], np.asarray(values)[:, 0, :, 0], np.asarray(sees)
    np.testing.assert_array_equal(keys, -values)
    return [[sorted(row[one].tolist()) for one in looks] for row, looks in zip(keys, sees, strict=True)]


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("kind", ["ring", "growing"])
def test_every_entry_sees_the_window_before_it_whatever_comes_at_once(kind, at_once):
    """Appends of 1 to 11 entries, longer than the ring too, with holes, rows at different lengths, a row reset."""
    if kind == "ring":
        cache = empty_ring(3, W, 1, 1, jnp.float32, at_once)
    else:
        cache = empty_cache(3, TOTAL, 1, 1, jnp.float32, W)
    generator, rows, name = np.random.default_rng(0), [[], [], []], 0
    for turn, size in enumerate((1, 3, 1, 11, 3, 1, 1, 1)):
        names = np.arange(name + 1, name + 1 + 3 * size, dtype=np.float32).reshape(3, size)
        real, name = generator.random((3, size)) < 0.7, name + 3 * size
        positions = np.asarray(cache.positions(jnp.asarray(real)))
        cache, *shown = append(cache, names, real)
        found = seen(*shown)
        for row, t in zip(*np.nonzero(real), strict=True):
            assert positions[row, t] == len(rows[row])
            rows[row].append(float(names[row, t]))
            assert found[row][t] == rows[row][-W:]
        assert cache.length.tolist() == [len(row) for row in rows]
        if turn == 4:
            cache, rows[1] = cache.reset(jnp.array([False, True, False])), []
    assert max(map(len, rows)) > 2 * W + at_once and len(rows[1]) < W


def test_a_ring_is_no_larger_than_its_window_needs():
    assert empty_ring(1, W, 1, 1, jnp.bfloat16).keys.shape == (1, 1, W, 1)
    assert empty_ring(1, W, 1, 1, jnp.bfloat16, at_once=3).slots == W + 2
    with pytest.raises(UserError, match="window is 0: must be at least 1"):
        empty_ring(1, 0, 1, 1, jnp.float32)


def test_rows_of_every_cache_are_picked_like_any_tree():
    picked = jnp.array([1, 1])
    for cache in (empty_cache(2, 3, 1, 1, jnp.float32), empty_ring(2, 3, 1, 1, jnp.float32)):
        cache, *_ = append(cache, jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[True, True], [True, False]]))
        cache = jax.tree.map(lambda leaf: leaf[picked], cache)
        assert cache.length.tolist() == [1, 1] and cache.keys[:, 0, 0, 0].tolist() == [3, 3]


def test_a_context_is_not_changed_by_what_comes_later():
    context = empty_context(2, 5, 1, 1, jnp.float32)
    cache, keys, _, sees = append(context, jnp.ones((2, 3)), jnp.ones((2, 3), bool))
    assert keys.shape == (2, 1, 5, 1) and sees.shape == (2, 1, 5)
    assert (cache.keys == 0).all() and not sees.any()
