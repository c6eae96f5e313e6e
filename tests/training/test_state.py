"""The state of a run: born sharded, split into checkpoint items, started from given parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.state import TrainState, abstract_state, new_state, overlay, split_variables
from slm_jax.training.step import optimizer_init
from tests.training.small_run import initialise, player


def build(ema):
    mesh = MeshConfig().make()
    opt = optimizer_init([player()], 10)
    shapes, shardings = abstract_state(initialise, opt, ema=ema, mesh=mesh, rules="ddp")
    return shapes, shardings, new_state(initialise, opt, ema=ema, key=jax.random.key(3), shardings=shardings)


@pytest.mark.parametrize("ema", [False, True])
def test_shapes_are_those_of_the_real_state_and_items_make_it_again(ema):
    shapes, shardings, state = build(ema)
    assert jax.tree.structure(shapes) == jax.tree.structure(state) == jax.tree.structure(shardings)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (shapes, state))
    assert described[0] == described[1]
    assert set(state.trees()) == {"params", "train"} | ({"ema"} if ema else set())
    again = TrainState.from_trees(state.trees())
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True))


def test_the_seed_decides_the_parameters():
    opt, (_, shardings, state) = optimizer_init([player()], 10), build(False)
    kernels = [np.asarray(state.params["first"]["kernel"])]
    for seed in (3, 4):
        other = new_state(initialise, opt, ema=False, key=jax.random.key(seed), shardings=shardings)
        kernels.append(np.asarray(other.params["first"]["kernel"]))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_variables_need_params():
    assert split_variables({"params": {"a": 1}}) == ({"a": 1}, None)
    assert split_variables({"params": {}, "averages": {"m": 1}}) == ({}, {"averages": {"m": 1}})
    with pytest.raises(UserError, match=r"variables is \['averages'\]"):
        split_variables({"averages": {}})


def test_given_parameters_take_their_place_and_keep_the_dtype_of_the_model():
    _, shardings, state = build(False)
    given = {"second": {"bias": np.asarray([0.5], np.float64)}}
    params = overlay(state.params, given, shardings.params)
    assert params["second"]["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(params["second"]["bias"], [0.5])
    assert params["first"]["kernel"] is state.params["first"]["kernel"]
    with pytest.raises(UserError, match=r"shape is \(2,\): must have the model's shape \(1,\)"):
        overlay(state.params, {"second": {"bias": np.zeros(2)}}, shardings.params)
