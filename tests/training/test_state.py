"""The state of a run: born sharded, split into checkpoint items, started from given parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.state import TrainState, abstract_state, check_variables, new_state, overlay
from slm_jax.training.step import everything, optimizer_init
from tests.training.small_run import initialise, player


def build(ema):
    mesh = MeshConfig().make()
    opt = optimizer_init([player()], 10)
    shapes, shardings = abstract_state(initialise, opt, ema=everything if ema else None, mesh=mesh, rules="ddp")
    return (
        shapes,
        shardings,
        new_state(initialise, opt, ema=everything if ema else None, key=jax.random.key(3), shardings=shardings),
    )


@pytest.mark.parametrize("ema", [False, True])
def test_shapes_are_those_of_the_real_state_and_items_make_it_again(ema):
    shapes, shardings, state = build(ema)
    assert jax.tree.structure(shapes) == jax.tree.structure(state) == jax.tree.structure(shardings)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (shapes, state))
    assert described[0] == described[1]
    assert set(state.trees()) == {"params", "collections", "train"} | ({"ema"} if ema else set())
    again = TrainState.from_trees(state.trees())
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True))


def test_a_state_whose_parameters_are_all_frozen_has_no_item_of_them():
    """An empty item is refused by Orbax; the structure that is restored stays the same."""
    variables = {"params": {}, "lora": {"a": jnp.ones(3)}}
    state = TrainState(variables=variables, opt={}, ema=None, step=jnp.int32(0), key=jax.random.key(0))
    assert set(state.trees()) == {"collections", "train"}
    again = TrainState.from_trees(state.trees())
    assert jax.tree.structure(again) == jax.tree.structure(state) and again.params == {}


def test_the_seed_decides_the_parameters():
    opt, (_, shardings, state) = optimizer_init([player()], 10), build(False)
    kernels = [np.asarray(state.params["first"]["kernel"])]
    for seed in (3, 4):
        other = new_state(initialise, opt, ema=None, key=jax.random.key(seed), shardings=shardings)
        kernels.append(np.asarray(other.params["first"]["kernel"]))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_variables_need_params():
    with pytest.raises(UserError, match=r"variables is \['averages'\]"):
        check_variables({"averages": {}})


@pytest.mark.parametrize("bare", [True, False])
def test_given_leaves_take_their_place_and_keep_the_dtype_of_the_model(bare):
    _, shardings, state = build(False)
    given = {"second": {"bias": np.asarray([0.5], np.float64)}}
    given = given if bare else {"params": given, "averages": {"mean": np.arange(16.0)}}
    found = overlay(state.variables, given, shardings.variables)
    assert found["params"]["second"]["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(found["params"]["second"]["bias"], [0.5])
    np.testing.assert_array_equal(found["averages"]["mean"], np.zeros(16) if bare else np.arange(16.0))
    assert found["params"]["first"]["kernel"] is state.params["first"]["kernel"]
    with pytest.raises(UserError, match=r"shape is \(2,\): must have the model's shape \(1,\)"):
        overlay(state.variables, {"second": {"bias": np.zeros(2)}}, shardings.variables)
