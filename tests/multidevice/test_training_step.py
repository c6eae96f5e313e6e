"""A training step on eight devices equals one device, under every rule table, and a plain `jax.pmap` step."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def results(eight, tmp_path_factory):
    told = eight.ask("eight_devices:main", str(tmp_path_factory.mktemp("eight")))
    return {**told.result, "stderr": told.wrote}


def assert_near(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_allclose(other[path], one[path], atol=1e-5, rtol=0, err_msg=path)


@pytest.mark.parametrize("rules", ["ddp", "fsdp"])
def test_eight_devices_equal_one(results, rules):
    assert_near(results["one"], results[rules])


def test_a_pmap_step_is_the_same(results):
    assert_near(results["pmap"], results["plain_ddp"])
    assert_near(results["pmap"], results["plain_one"])


def test_accumulation_on_eight_devices_is_the_same(results):
    assert_near(results["plain_one"], results["plain_fsdp_accumulated"])


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_two_terms_and_statistics_are_the_same_however_a_batch_is_cut_and_spread(results, parts):
    assert_near(results["cut_one"], results[f"cut_{parts}"])


def test_given_weights_go_to_each_device_in_its_own_share(results):
    assert results["given"] == {"largest": 16, "held": [[1, 16]] * 16, "same": True}


def test_dropout_makes_a_difference(results):
    difference = np.abs(np.subtract(results["one"]["first/kernel"], results["plain_one"]["first/kernel"]))
    assert difference.max() > 1e-3


def test_fsdp_shards_parameters_and_their_averages(results):
    assert results["shards"] == {"params": [2, 16], "mu": [2, 16], "ema": [2, 16], "ddp": [8, 16]}


def test_a_run_moves_from_fsdp_to_ddp_with_a_warning(results):
    assert_near(results["whole"], results["moved"])
    assert "mesh.rules: fsdp -> ddp" in results["stderr"]
