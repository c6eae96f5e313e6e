"""One decode over eight devices gives what one device gives."""

import numpy as np
import pytest

from tests.multidevice.decoding_meshes import TRIED


@pytest.fixture(scope="module")
def results(eight):
    return eight("decoding_meshes:main", "sampled", "three streams")


@pytest.fixture(scope="module")
def guided(eight):
    return eight("decoding_meshes:main", "guided")


@pytest.mark.parametrize("case, mesh", [tried for tried in TRIED if tried[0] != "guided"])
def test_rows_over_eight_devices_equal_one(results, case, mesh):
    assert_equal_to_one(results, case, mesh)


@pytest.mark.slow(seconds=10)
def test_guided_rows_over_eight_devices_equal_one(guided):
    assert_equal_to_one(guided, "guided", "ddp")


def assert_equal_to_one(results, case, mesh):
    wanted, found = results[case]["one"], results[case][mesh]
    assert len(found["ids"]) == 5, "rows that fill up the devices are gone"
    assert found["ids"] == wanted["ids"]
    np.testing.assert_allclose(found["log_probs"], wanted["log_probs"], atol=1e-4)
    assert len({str(row) for row in wanted["ids"]}) == 5


def test_each_device_holds_the_caches_of_its_rows(results):
    assert results["sampled"]["one"]["caches"] == ["f32[5,2,64,8]"]
    assert results["sampled"]["ddp"]["caches"] == ["f32[1,2,64,8]"]
    assert results["sampled"]["fsdp+tensor"]["caches"] == ["f32[2,1,64,8]"]
