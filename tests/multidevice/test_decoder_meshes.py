"""A decoder on eight devices, however they are arranged, trains as on one; the model's file knows nothing of it."""

import numpy as np
import pytest

QUICK = ("all, chunks",)
SLOW = ("ddp", "fsdp", "tensor", "fsdp+tensor", "slices", "sequence", "all", "fsdp, chunks")


@pytest.fixture(scope="module")
def quick(eight):
    return {**eight("decoder_meshes:main", *QUICK), "attention": eight("decoder_meshes:attention")}


@pytest.fixture(scope="module")
def slow(eight):
    return eight("decoder_meshes:main", *SLOW)


def assert_equal_to_one_device(results, name):
    assert results[name].keys() == results["one"].keys()
    for path, wanted in results["one"].items():
        np.testing.assert_allclose(results[name][path], wanted, atol=1e-5, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", QUICK)
def test_all_axes_at_once_equal_one_device(quick, name):
    assert_equal_to_one_device(quick, name)
    assert quick["shards"][name] == {
        "blocks/layers/mlp/up/kernel": [2, 8, 16],
        "blocks/layers/attention/query/kernel": [2, 8, 2, 4],
        "tokens/embedding": [12, 8],
    }


@pytest.mark.parametrize("backend", ["xla", "splash"])
def test_attention_over_spread_time_equals_one_device(quick, backend):
    found = {name: apart for name, apart in quick["attention"]["apart"].items() if name.startswith(backend)}
    assert len(found) == 2
    assert max(found.values()) < 1e-5, found


def test_blocks_that_no_tile_of_the_kernel_cuts_are_refused_over_spread_time(quick):
    assert "over spread time knows none of multiples of 128; take xla" in quick["attention"]["refused"]


@pytest.mark.parametrize(
    "meshes", [("fsdp", "all"), pytest.param(("ddp", *SLOW[2:6]), marks=pytest.mark.slow(seconds=15))]
)
def test_grouped_convolutions_over_any_mesh_equal_one_device(eight, meshes):
    found = eight("decoder_meshes:convolution", *meshes)
    assert len(found) == 2 * len(meshes)
    assert {name: apart for name, apart in found.items() if apart > 1e-6} == {}


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("name", SLOW)
def test_every_arrangement_equals_one_device(slow, name):
    assert_equal_to_one_device(slow, name)


@pytest.mark.slow(seconds=10)
def test_a_tied_head_in_chunks_equals_one_device(eight):
    results = eight("decoder_meshes:tied", "fsdp", "all")
    assert list(results) == ["one", "fsdp", "all"] and "head_kernel" not in results["one"]
    for name in ("fsdp", "all"):
        assert_equal_to_one_device(results, name)


@pytest.mark.slow(seconds=1)
def test_weights_lie_as_the_rules_say(slow):
    up = {name: shards["blocks/layers/mlp/up/kernel"] for name, shards in slow["shards"].items()}
    assert up["ddp"] == up["sequence"] == [2, 16, 32]
    assert up["fsdp"] == up["slices"] == [2, 4, 32]
    assert up["tensor"] == [2, 16, 16]
    assert up["fsdp+tensor"] == [2, 4, 16]
    assert slow["shards"]["fsdp+tensor"]["tokens/embedding"] == [12, 4]
