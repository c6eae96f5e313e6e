import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.attend import attend
from slm_jax.nn.attention import Attention, empty_cache, reset_cache
from slm_jax.nn.visibility import causal_mask, segment_mask
from tests.contracts.checks import random_params

B, T, H, G, C = 2, 5, 4, 2, 3
KEYS = jax.random.split(jax.random.key(0), 4)
Q = jax.random.normal(KEYS[0], (B, T, H, C))
K, V = (jax.random.normal(k, (B, T, G, C)) for k in KEYS[1:3])
BIAS = jax.random.normal(KEYS[3], (B, H, T, T))


def by_hand(q, k, v, bias, mask):
    """One head and one query at a time."""
    y = np.zeros((B, T, H, C))
    for b, t, h in np.ndindex(B, T, H):
        group = h // (H // G)
        seen = np.flatnonzero(mask[b, t])
        scores = k[b, seen, group] @ q[b, t, h] / np.sqrt(C) + bias[b, h, t, seen]
        weights = np.exp(scores - scores.max())
        y[b, t, h] = weights @ v[b, seen, group] / weights.sum()
    return y


def test_grouped_heads_bias_and_mask_follow_the_equation():
    real = jnp.arange(T) < jnp.array([5, 3])[:, None]
    mask = causal_mask(T) & real[:, None, :]
    wanted = by_hand(*(np.asarray(x, np.float64) for x in (Q, K, V, BIAS)), np.asarray(mask))
    np.testing.assert_allclose(attend(Q, K, V, bias=BIAS, mask=mask), wanted, atol=1e-5)


def test_a_query_that_sees_nothing_stays_finite_with_its_gradient():
    mask = jnp.zeros((B, 1, T), bool)
    value, gradient = jax.jit(jax.value_and_grad(lambda q: attend(q, K, V, mask=mask).sum()))(Q)
    assert np.isfinite(float(value))
    assert np.isfinite(np.asarray(gradient)).all()


def test_heads_must_be_a_multiple_of_key_heads():
    with pytest.raises(UserError, match="heads"):
        attend(Q[:, :, :3], K, V)


def test_masks_of_windows_and_segments():
    assert causal_mask(4, window=2)[0].astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert segment_mask(jnp.array([[1, 1, 2]]))[0].astype(int).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_cross_attention_reads_the_context_of_another_width_and_length():
    layer = Attention(heads=H, head_width=C, kv_heads=G)
    x, context = jnp.ones((B, T, 8)), jax.random.normal(jax.random.key(1), (B, 9, 6))
    real = jnp.arange(9) < jnp.array([9, 4])[:, None]
    params = {"params": random_params(layer, jax.random.key(2), x, context)}
    run = jax.jit(lambda context: layer.apply(params, x, context, mask=real[:, None, :]))
    y, cache = run(context)
    padded, _ = run(jnp.where(real[..., None], context, 7.0))
    other, _ = run(context + 1.0)
    assert cache is None
    np.testing.assert_allclose(y, padded, atol=1e-6)
    assert np.abs(np.asarray(y - other)).max() > 1e-3


def test_a_cache_packs_real_entries_and_drops_what_does_not_fit():
    cache = empty_cache(2, 3, 1, 1, jnp.float32)
    entries = jnp.arange(1.0, 9.0).reshape(2, 4, 1, 1)
    mask = jnp.array([[0, 1, 0, 1], [1, 1, 1, 1]], bool)
    cache = cache.append(entries, -entries, mask)
    assert cache.length.tolist() == [2, 3]
    assert cache.keys[:, 0, :, 0].tolist() == [[2, 4, 0], [5, 6, 7]]
    assert cache.values[0, 0, :2, 0].tolist() == [-2, -4]
    assert reset_cache(cache, jnp.array([True, False])).length.tolist() == [0, 3]


@pytest.mark.parametrize("window", [None, 2])
def test_cached_equals_whole_with_holes_in_the_input(window):
    """Entries that are not real may stand anywhere: they leave no trace in the cache."""
    layer = Attention(heads=H, head_width=C, kv_heads=G, window=window, qk_norm=1e-6)
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    params = {"params": random_params(layer, jax.random.key(2), x)}
    real = jnp.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]], bool)
    cached = jax.jit(lambda x: layer.apply(params, x, cache=empty_cache(B, 6, G, C, jnp.float32), real=real)[0])
    whole = jax.jit(lambda x: layer.apply(params, x, mask=causal_mask(T, window))[0])
    y, kept = cached(x), [np.flatnonzero(np.asarray(row)) for row in real]
    packed = jnp.stack([jnp.pad(x[row, at], ((0, T - len(at)), (0, 0))) for row, at in enumerate(kept)])
    for row, at in enumerate(kept):
        np.testing.assert_allclose(y[row, at], whole(packed)[row, : len(at)], atol=1e-5)
