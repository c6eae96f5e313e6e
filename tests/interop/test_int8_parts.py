"""Frozen parts with dense kernels in int8: the same integers as of a model in memory, made when they are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.lazy import LazyArray, load_part
from slm_jax.checkpoints.model_folder import save_model
from slm_jax.core.part_source import INT8, PartSource
from slm_jax.core.trees import count_bytes, flatten_by_path
from slm_jax.interop.model import export
from slm_jax.interop.parts import boxed_shapes, open_source, opened
from slm_jax.nn.int8 import dequantised
from slm_jax.nn.int8_base import quantise_int8
from slm_jax.nn.linear_sites import linear_sites
from slm_jax.parallel.sharding import unbox
from slm_jax.sequence_models.presets import llama
from tests.contracts.checks import assert_close, random_params
from tests.shapes import ENCODERS

LM = llama("7b", vocabulary=24, layers=2, width=16, heads=2, kv_heads=1, hidden=24, max_positions=32)
SOURCE = PartSource(path="frozen/lm", source="folder", dtype=INT8)
IDS = jnp.arange(6)[None]
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture(scope="module")
def params():
    return random_params(LM.make(), jax.random.key(0), IDS)


@pytest.fixture(scope="module", params=["hub", "ours"])
def part(request, params, tmp_path_factory):
    """From a hub's folder, read layer by layer, and from one of ours."""
    folder = tmp_path_factory.mktemp(request.param) / "lm"
    if request.param == "hub":
        export(LM, params, folder)
    else:
        save_model(folder, LM, params)
    return opened(SOURCE, *open_source(str(folder)), folder)


def test_leaves_are_read_when_they_are_asked_for(part):
    leaves = flatten_by_path(unbox(part.params))
    assert all(isinstance(leaf, LazyArray) for leaf in leaves.values())
    query = leaves["blocks/layers/attention/query/kernel/q"]
    assert (query.shape, query.dtype.name) == ((2, 16, 2, 8), "int8")
    assert leaves["blocks/layers/attention/query/kernel/scale"].shape == (2, 1, 2, 8)
    assert leaves["blocks/layers/attention/out/kernel/scale"].shape == (2, 1, 1, 16)
    assert leaves["tokens/embedding"].dtype == leaves["head_kernel"].dtype == np.float32


def test_they_are_the_integers_of_the_model_in_memory(part, params):
    sites = linear_sites(lambda key: LM.make().init(key, IDS))
    wanted = flatten_by_path(quantise_int8(params, sites))
    found = flatten_by_path(load_part(unbox(part.params), ONE))
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    shapes = flatten_by_path(unbox(boxed_shapes(LM, INT8)))
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in shapes.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in wanted.items()
    }


def test_the_model_says_nearly_the_same_in_fewer_bytes(part, params):
    stored = load_part(unbox(part.params), ONE)
    say = jax.jit(lambda params: LM.make().apply({"params": params}, IDS))
    assert_close(say(stored), say(dequantised(stored)), 1e-5)
    apart = np.abs(say(stored) - say(params)).max() / np.abs(say(params)).max()
    assert 1e-4 < apart < 0.05
    kernels = {name: count_bytes(tree["blocks"]) for name, tree in (("int8", stored), ("float32", params))}
    assert kernels["int8"] < 0.35 * kernels["float32"]


def test_an_encoder_of_convolutions_keeps_them(tmp_path):
    config = ENCODERS["waveform"]
    save_model(tmp_path / "encoder", config, random_params(config.make(), jax.random.key(1), jnp.zeros((1, 2_000))))
    part = opened(SOURCE.replace(path="frozen/encoder"), *open_source(str(tmp_path / "encoder")), tmp_path)
    kinds = {path: leaf.dtype.name for path, leaf in flatten_by_path(unbox(part.params)).items()}
    assert {kind for path, kind in kinds.items() if "conv" in path} == {"float32"}
    assert sum(kind == "int8" for kind in kinds.values()) == 8, (
        "six of a layer, the gate of its relative bias, a projection"
    )
