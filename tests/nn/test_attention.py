import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.attend import attend
from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import empty_cache, empty_context, empty_ring
from slm_jax.nn.positions import rotation
from slm_jax.nn.visibility import Visibility, causal_mask, segment_mask
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


def test_a_bias_may_follow_from_the_queries():
    x = Q.reshape(B, T, -1)
    attention = Attention(H, C)
    params = random_params(attention, jax.random.key(0), x)

    def given(q):
        return q.sum(-1).transpose(0, 2, 1)[..., None] * BIAS

    y, _ = attention.apply({"params": params}, x, bias=given)
    queries = jnp.einsum("btd,dhc->bthc", x, params["query"]["kernel"]) + params["query"]["bias"]
    wanted, _ = attention.apply({"params": params}, x, bias=given(queries))
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    assert np.abs(y - attention.apply({"params": params}, x, bias=BIAS)[0]).max() > 1e-2


def test_cross_attention_reads_the_context_of_another_width_and_length():
    layer = Attention(heads=H, head_width=C, kv_heads=G)
    x, context = jnp.ones((B, T, 8)), jax.random.normal(jax.random.key(1), (B, 9, 6))
    real = jnp.arange(9) < jnp.array([9, 4])[:, None]
    params = {"params": random_params(layer, jax.random.key(2), x, context)}
    run = jax.jit(lambda context: layer.apply(params, x, context, mask=real))
    y, cache = run(context)
    padded, _ = run(jnp.where(real[..., None], context, 7.0))
    other, _ = run(context + 1.0)
    assert cache is None
    np.testing.assert_allclose(y, padded, atol=1e-6)
    assert np.abs(np.asarray(y - other)).max() > 1e-3
    by_query, _ = layer.apply(params, x, context, mask=real[:, None, :])
    np.testing.assert_allclose(y, by_query, atol=1e-6)


def test_a_context_is_read_once_and_kept():
    layer = Attention(heads=H, head_width=C, kv_heads=G, qk_norm=1e-6)
    x, context = jax.random.normal(KEYS[0], (B, T, 8)), jax.random.normal(KEYS[1], (B, 9, 6))
    real = jnp.arange(9) < jnp.array([9, 4])[:, None]
    params = {"params": random_params(layer, jax.random.key(2), x, context)}
    wanted, _ = layer.apply(params, x, context, mask=real)
    empty = empty_context(B, 9, G, C, jnp.float32)
    first, cache = jax.jit(lambda c: layer.apply(params, x[:, :2], context, mask=real, cache=c))(empty)
    rest, after = jax.jit(lambda c: layer.apply(params, x[:, 2:], cache=c))(cache)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), wanted, atol=1e-6)
    assert all((one == other).all() for one, other in zip(*map(jax.tree.leaves, (cache, after)), strict=True))
    assert cache.mask.tolist() == real.tolist()
    assert cache.reset(jnp.array([False, True])).mask.sum(1).tolist() == [9, 0]


GROWING, RING = empty_cache(B, 6, G, C, jnp.float32), empty_ring(B, 3, G, C, jnp.float32)
KEPT, REAL, CONTEXT = empty_context(B, 9, G, C, jnp.float32), jnp.ones((B, T), bool), jnp.ones((B, 9, 6))
TURNED = rotation(jnp.arange(T)[None].repeat(B, 0), 4, 100.0)
NO_MEANING = {
    "growing": (CONTEXT, {"cache": GROWING}, "cache is 'KVCache': keeps a sequence"),
    "ring": (CONTEXT, {"cache": RING}, "cache is 'RingCache': keeps a sequence"),
    "rule of a sequence": (CONTEXT, {"mask": Visibility()}, "mask is 'a Visibility': says who sees whom within one"),
    "mask to be kept": (
        CONTEXT,
        {"cache": KEPT, "mask": jnp.ones((B, T, 9), bool)},
        r"'of 3 axes': .* give it \[B, S\]",
    ),
    "two say who is seen": (None, {"cache": RING, "mask": Visibility()}, "the RingCache says who is seen"),
    "mask of no context": (None, {"mask": REAL}, "'of 2 axes': says which entries of a context"),
    "turned context": (CONTEXT, {"by": TURNED}, "by is 'a rotation'"),
    "turned queries": (None, {"cache": KEPT, "by": TURNED}, "by is 'a rotation'"),
    "nothing takes entries": (None, {"real": REAL}, "real is 'a mask'"),
    "a context takes none": (None, {"cache": KEPT, "real": REAL}, "real is 'a mask'"),
}


@pytest.mark.parametrize("name", NO_MEANING)
def test_what_has_no_meaning_together_is_refused(name):
    context, given, message = NO_MEANING[name]
    layer = Attention(heads=H, head_width=4, kv_heads=G)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.ones((B, T, 8)), context, **given))


@pytest.mark.parametrize("window", [None, 2])
def test_cached_equals_whole_with_holes_in_the_input(window):
    """Entries that are not real may stand anywhere: they leave no trace in the cache."""
    layer = Attention(heads=H, head_width=C, kv_heads=G, qk_norm=1e-6)
    x = jax.random.normal(jax.random.key(1), (B, T, 8))
    params = {"params": random_params(layer, jax.random.key(2), x)}
    real = jnp.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1]], bool)
    empty = empty_cache(B, 6, G, C, jnp.float32, window)
    cached = jax.jit(lambda x: layer.apply(params, x, cache=empty, real=real)[0])
    whole = jax.jit(lambda x: layer.apply(params, x, mask=causal_mask(T, window))[0])
    y, kept = cached(x), [np.flatnonzero(np.asarray(row)) for row in real]
    packed = jnp.stack([jnp.pad(x[row, at], ((0, T - len(at)), (0, 0))) for row, at in enumerate(kept)])
    for row, at in enumerate(kept):
        np.testing.assert_allclose(y[row, at], whole(packed)[row, : len(at)], atol=1e-5)
