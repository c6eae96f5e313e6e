import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.nn.linear import Embed, Linear, logits_float32
from tests.contracts.checks import random_params

X = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))


def test_contracts_named_axes_and_adds_the_bias():
    layer = Linear((5, 2), in_names=("heads", "head"), out_names=("mlp", None))
    params = random_params(layer, jax.random.key(1), X)
    assert params["kernel"].shape == (4, 6, 5, 2)
    wanted = np.einsum("bthc,hcfg->btfg", X, params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(layer.apply({"params": params}, X), wanted, atol=1e-5)


def test_weights_carry_logical_names_and_stay_float32_under_bfloat16():
    layer = Linear(5, in_names=("embed",), out_names=("mlp",), dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(1), X)
    assert variables["params"]["kernel"].names == ("embed", "mlp")
    assert variables["params"]["bias"].names == ("mlp",)
    assert meta.unbox(variables)["params"]["kernel"].dtype == jnp.float32
    assert layer.apply(meta.unbox(variables), X).dtype == jnp.bfloat16


def test_initial_outputs_keep_the_variance_of_their_inputs():
    layer = Linear(400, in_names=("heads", "head"), use_bias=False)
    x = jax.random.normal(jax.random.key(0), (200, 8, 50))
    y = layer.apply(meta.unbox(layer.init(jax.random.key(1), x)), x)
    assert float(y.std()) == pytest.approx(1.0, abs=0.05)


def test_wrong_number_of_names_is_refused():
    with pytest.raises(UserError, match="out_names"):
        Linear((5, 2), out_names=("mlp",)).init(jax.random.key(0), X)


def test_embedding_looks_up_and_scores():
    table = Embed(7, 3)
    ids = jnp.array([[1, 6], [0, 99]])
    params = random_params(table, jax.random.key(0), ids)
    rows = np.asarray(params["embedding"])
    vectors = table.apply({"params": params}, ids)
    np.testing.assert_array_equal(vectors, rows[[[1, 6], [0, 6]]])
    scores = table.apply({"params": params}, vectors, method="attend")
    np.testing.assert_allclose(scores, np.asarray(vectors) @ rows.T, atol=1e-6)


def test_logits_are_float32_whatever_comes_in():
    assert logits_float32(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)).dtype == jnp.float32
