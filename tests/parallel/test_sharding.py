"""Shardings of trees and batches on one device; `tests/multidevice` has eight."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, row_parts, shardings_for, shardings_like, unbox, with_shardings
from slm_jax.parallel.topologies import make_topology

INIT = nn.initializers.lecun_normal()


class Layer(nn.Module):
    names: tuple = ("embed", "mlp")

    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, kernel_init=nn.with_logical_partitioning(INIT, self.names), name="dense")(x)


def abstract(**changes):
    return jax.eval_shape(Layer(**changes).init, jax.random.key(0), jnp.zeros((1, 4)))["params"]


def test_boxes_become_specs_and_the_rest_is_replicated():
    mesh = MeshConfig(rules="fsdp").make()
    shardings = shardings_for(abstract(), mesh, "fsdp")
    assert shardings["dense"]["kernel"].spec == PartitionSpec("fsdp", None)
    assert shardings["dense"]["bias"].spec == PartitionSpec()
    assert jax.tree.structure(shardings) == jax.tree.structure(unbox(abstract()))
    assert with_shardings(unbox(abstract()), shardings)["dense"]["kernel"].sharding.spec == PartitionSpec("fsdp", None)


def test_wrong_names_and_rules_are_refused():
    mesh = MeshConfig().make()
    with pytest.raises(UserError, match=r"must name each dimension of a weight of shape \(4, 6\)"):
        shardings_for(abstract(names=("embed",)), mesh, "ddp")
    with pytest.raises(UserError, match=r"mesh.rules is 'fdsp'"):
        shardings_for(abstract(), mesh, "fdsp")


def test_optimizer_states_lie_where_their_parameters_lie():
    mesh = MeshConfig(rules="fsdp").make()
    params, shardings = unbox(abstract()), shardings_for(abstract(), mesh, "fsdp")
    state = jax.eval_shape(optax.adam(1e-3).init, params)
    placed = shardings_like(state, params, shardings, mesh)
    assert placed[0].mu["dense"]["kernel"].spec == placed[0].nu["dense"]["kernel"].spec == PartitionSpec("fsdp", None)
    assert placed[0].count.spec == PartitionSpec()
    factored = jax.eval_shape(optax.scale_by_factored_rms(min_dim_size_to_factor=2).init, params)
    assert shardings_like(factored, params, shardings, mesh).v_row["dense"]["kernel"].spec == PartitionSpec()


def test_batches_keep_their_rows_and_scalars_are_refused():
    mesh = MeshConfig().make()
    batch = {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3), "mask": np.array([True, False])}
    placed = put_batch(batch, mesh)
    for name, value in batch.items():
        np.testing.assert_array_equal(placed[name], value)
        assert placed[name].dtype == value.dtype
    with pytest.raises(UserError, match=r"batch\['n'\] shape is \(\)"):
        put_batch({"n": np.asarray(3)}, mesh)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_parts_of_a_batch_follow_the_mesh_not_the_hosts():
    """Meshes over TPU slices, whose wires cross the hosts, as seen by process 0."""
    devices = make_topology("v5e:4x4").devices  # four hosts of 2 x 2 chips
    assert row_parts(MeshConfig().make(devices)) == ((0, 1, 6, 15), 16)
    assert row_parts(MeshConfig(tensor=4, rules="tensor").make(devices)) == ((0,), 2)
    assert row_parts(MeshConfig(tensor=16, data=1, rules="tensor").make(devices)) == ((0,), 1)
    assert row_parts(MeshConfig().make()) == ((0,), 1)
