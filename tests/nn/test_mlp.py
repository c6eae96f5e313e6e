from functools import partial

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.mlp import MLP, activation
from tests.contracts.checks import random_params

X = jax.random.normal(jax.random.key(0), (2, 3, 8))


@pytest.mark.parametrize("gated", [False, True])
def test_follows_its_equation(gated):
    layer = MLP(12, activation="silu", gated=gated)
    p = jax.tree.map(np.asarray, random_params(layer, jax.random.key(1), X))

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def silu(x):
        return x / (1 + np.exp(-x))

    up = dense(np.asarray(X), "up")
    hidden = silu(dense(np.asarray(X), "gate")) * up if gated else silu(up)
    np.testing.assert_allclose(layer.apply({"params": p}, X), dense(hidden, "down"), atol=1e-5)


def test_dropout_acts_in_training_only():
    layer = MLP(64, dropout=0.5)
    params = {"params": random_params(layer, jax.random.key(1), X)}
    run = jax.jit(partial(layer.apply, params), static_argnames="deterministic")
    still, rngs = run(X), {"dropout": jax.random.key(0)}
    noisy = run(X, deterministic=False, rngs=rngs)
    np.testing.assert_array_equal(run(X, deterministic=True, rngs=rngs), still)
    assert np.abs(np.asarray(noisy - still)).max() > 0.01


def test_the_two_gelus_equal_pytorch_and_an_unknown_name_is_refused():
    torch = pytest.importorskip("torch")
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    for name, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):
        wanted = torch.nn.functional.gelu(torch.tensor(x), approximate=approximate)
        np.testing.assert_allclose(activation(name)(x), wanted, atol=1e-6)
    with pytest.raises(UserError, match="activation"):
        activation("swish9")
