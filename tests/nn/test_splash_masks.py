"""The masks of the splash kernel, and the kernel with them compiled for a TPU that is not here."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from slm_jax.nn.self_attention import attend_self
from slm_jax.nn.splash_masks import block_mask
from slm_jax.nn.visibility import Visibility
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.topologies import make_topology
from slm_jax.workbench.plan import uncached


@pytest.mark.parametrize("window", [None, 2])
def test_every_tile_of_a_block_mask_is_that_part_of_the_dense_form(window):
    mask, dense = block_mask((12, 12), 3, window), np.asarray(Visibility(block=3, window=window).dense(12))[0]
    for query, key in np.ndindex(3, 3):
        tile = slice(4 * query, 4 * query + 4), slice(4 * key, 4 * key + 4)
        np.testing.assert_array_equal(mask[tile], dense[tile])
    equal, other = block_mask((12, 12), 3, window), block_mask((12, 12), 4, window)
    assert mask == equal and hash(mask) == hash(equal) and mask != other


RULES = {
    "prefix": (6, lambda segments, prefix: Visibility(segments, prefix=prefix)),
    "blocks": (3, lambda segments, prefix: Visibility(segments, block=48, window=4)),
    "both ways": (3, lambda segments, prefix: Visibility(segments, causal=False)),
}


@pytest.mark.slow(seconds=30)
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("name", RULES)
def test_the_kernel_compiles_for_a_tpu_with_time_and_heads_spread(name):
    """Forward and both gradients are kernels, of each pass, and nothing fell back to the equation."""
    kernels, rule = RULES[name]
    mesh = MeshConfig(data=1, sequence=2, tensor=2, rules="tensor").make(make_topology("v5e:2x2").devices)

    def loss(q, k, v, segments, prefix):
        return attend_self(q, k, v, rule(segments, prefix)).astype(jnp.float32).sum()

    whole = NamedSharding(mesh, PartitionSpec())
    shapes = [((2, 1024, heads, 128), jnp.bfloat16) for heads in (4, 2, 2)]
    shapes += [((2, 1024), jnp.int32), ((2, 1024), jnp.bool_)]
    args = [jax.ShapeDtypeStruct(*shape, sharding=whole) for shape in shapes]
    with placed_on(mesh), uncached():
        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*args).compile().as_text()
    assert program.count("tpu_custom_call") == kernels
