import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.norm import GroupNorm, LayerNorm, RMSNorm
from tests.contracts.checks import padding_has_no_effect, random_params

X = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (2, 5, 8))


def test_layer_and_rms_norm_follow_their_equations():
    x = np.asarray(X)
    layer, rms = LayerNorm(epsilon=1e-5), RMSNorm(epsilon=1e-6)
    p, q = random_params(layer, jax.random.key(1), X), random_params(rms, jax.random.key(2), X)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    wanted = normed * np.asarray(p["scale"]) + np.asarray(p["bias"])
    np.testing.assert_allclose(layer.apply({"params": p}, X), wanted, atol=1e-5)
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(q["scale"])
    np.testing.assert_allclose(rms.apply({"params": q}, X), wanted, atol=1e-5)


def test_statistics_are_float32_under_bfloat16():
    x = (1000.0 + jax.random.normal(jax.random.key(0), (1, 2, 64))).astype(jnp.bfloat16)
    layer = LayerNorm(dtype=jnp.bfloat16, use_scale=False, use_bias=False)
    y = layer.apply({}, x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), wanted, atol=0.02)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_group_norm_equals_pytorch(groups):
    torch = pytest.importorskip("torch")
    layer = GroupNorm(groups)
    params = random_params(layer, jax.random.key(1), X)
    weight, bias = (torch.tensor(np.asarray(params[name])) for name in ("scale", "bias"))
    wanted = torch.nn.functional.group_norm(torch.tensor(np.asarray(X)).transpose(1, 2), groups, weight, bias)
    np.testing.assert_allclose(layer.apply({"params": params}, X), wanted.transpose(1, 2), atol=1e-5)


def test_masked_group_norm_counts_real_frames_alone():
    layer = GroupNorm(8)
    params = random_params(layer, jax.random.key(1), X)
    mask = jnp.arange(5) < jnp.array([5, 3])[:, None]

    def whole(x, mask):
        return layer.apply({"params": params}, x, mask)

    padding_has_no_effect(whole, X, mask, garbage=1e4)
    alone = layer.apply({"params": params}, X[1:, :3])
    np.testing.assert_allclose(whole(X, mask)[1, :3], alone[0], atol=1e-5)
    assert np.isfinite(np.asarray(whole(X, jnp.zeros_like(mask)))).all()
