"""Attention over one sequence: the fused kernel (interpreted here) against the equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.attend import attend
from slm_jax.nn.self_attention import attend_self, preferred
from slm_jax.nn.visibility import Visibility, causal_mask, segment_mask, visible

B, T, H, G, C = 2, 150, 4, 2, 16
KEYS = jax.random.split(jax.random.key(0), 4)
Q = jax.random.normal(KEYS[0], (B, T, H, C))
K, V = (jax.random.normal(key, (B, T, G, C)) for key in KEYS[1:3])
SEGMENTS = jnp.where(jnp.arange(T) < jnp.array([[140], [90]]), jnp.arange(T) // 50 + 1, 0)
CASES = {
    "causal": Visibility(),
    "causal in segments": Visibility(SEGMENTS),
    "window": Visibility(SEGMENTS, window=20),
    "both ways": Visibility((SEGMENTS > 0).astype(jnp.int32), causal=False),
}


@pytest.mark.parametrize("name", CASES)
def test_splash_equals_the_equation_with_its_gradients(name):
    sees = CASES[name]
    real = jnp.ones((B, T), bool) if sees.segments is None else sees.segments > 0
    weight = jax.random.normal(KEYS[3], (B, T, H, C)) * real[..., None, None]

    def loss(backend, q, k, v):
        return (attend_self(q, k, v, sees, backend=backend) * weight).sum()

    both = [jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3)), static_argnums=0)(b, Q, K, V) for b in BACKENDS]
    (wanted, wanted_gradients), (value, gradients) = both
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-3)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5)


BACKENDS = ("xla", "splash")


def test_visibility_is_the_mask_it_stands_for():
    dense = np.asarray(visible(SEGMENTS > 0, SEGMENTS, window=7).dense(T))
    real = np.asarray(SEGMENTS > 0)
    wanted = np.asarray(causal_mask(T, 7) & segment_mask(SEGMENTS)) & real[:, None, :]
    np.testing.assert_array_equal(dense[real], wanted[real])
    part = visible(None, SEGMENTS).dense(T, first=100, queries=50)
    np.testing.assert_array_equal(part, np.asarray(visible(None, SEGMENTS).dense(T))[:, 100:])
    assert Visibility(causal=False).dense(T) is None


def test_padding_is_no_part_of_the_first_segment():
    mask, zero_based = jnp.arange(6)[None] < 4, jnp.array([[0, 0, 1, 1, 0, 0]])
    dense = np.asarray(visible(mask, zero_based).dense(6))[0]
    assert not dense[4:, :4].any() and not dense[:4, 4:].any()
    assert dense[1, 0] and not dense[2, 1]


def test_dropping_weights_needs_the_equation():
    def drop(x):
        return jnp.where(jnp.arange(x.shape[-1]) % 2 == 0, x * 2, 0.0)

    assert preferred(Q, drop) == preferred(Q) == "xla"  # there is no TPU or GPU here
    dropped = attend_self(Q, K, V, Visibility(), drop)
    np.testing.assert_allclose(dropped, attend(Q, K, V, mask=causal_mask(T), dropout=drop), atol=1e-6)
    with pytest.raises(UserError, match="backend is 'splash': drops no weights"):
        attend_self(Q, K, V, Visibility(), drop, backend="splash")
