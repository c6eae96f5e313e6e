"""Adapters on eight devices, however these are arranged, learn as on one, and lie where the rules put them."""

import numpy as np
import pytest

QUICK = ("fsdp+tensor, float", "fsdp+tensor, int8")
FLOAT = ("ddp, float", "fsdp, float", "tensor, float", "slices, float", "sequence, float", "all, float")
SLOW = (*FLOAT, "all, int8")
LAYERS = "blocks/layers"


@pytest.fixture(scope="module")
def quick(eight):
    return eight("lora_meshes:main", *QUICK)


@pytest.fixture(scope="module")
def slow(eight):
    return eight("lora_meshes:main", *SLOW)


def assert_equal_to_one_device(results, name):
    wanted = results[f"one, {name.partition(', ')[2]}"]
    assert results[name].keys() == wanted.keys()
    assert wanted["losses"][-1] < wanted["losses"][0] - 0.01, "nothing was learned"
    for path, leaf in wanted.items():
        np.testing.assert_allclose(results[name][path], leaf, atol=1e-5, rtol=1e-5, err_msg=path)
        assert path == "losses" or np.abs(leaf).max() > 1e-4, path


@pytest.mark.parametrize("name", QUICK)
def test_adapters_learn_as_on_one_device(quick, name):
    assert_equal_to_one_device(quick, name)


def test_no_device_holds_more_than_its_share(quick):
    lies = quick["shards"]["fsdp+tensor, int8"]
    assert lies[f"params/{LAYERS}/attention/out/kernel/q"] == [2, 2, 4, 4]
    assert lies[f"params/{LAYERS}/attention/out/kernel/scale"] == [2, 1, 1, 4]
    assert quick["shards"]["fsdp+tensor, float"][f"params/{LAYERS}/attention/out/kernel"] == [2, 2, 4, 4]
    for case in QUICK:
        assert quick["shards"][case][f"lora/{LAYERS}/attention/out/speech/a"] == [2, 2, 1, 2]
        assert quick["shards"][case][f"lora/{LAYERS}/attention/query/speech/b"] == [2, 2, 2, 1]
        assert quick["shards"][case][f"lora/{LAYERS}/mlp/up/style/b"] == [2, 3, 16]


@pytest.mark.slow(seconds=80)
@pytest.mark.parametrize("name", SLOW)
def test_every_arrangement_equals_one_device(slow, name):
    assert_equal_to_one_device(slow, name)
