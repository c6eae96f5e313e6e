"""HuBERT's pre-training and a vocoder with its judges train under fsdp, and with tensor beside it, as on one device."""

import pytest


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("stage", ["hubert", "vocoder"])
def test_a_stage_over_eight_devices_equals_one(stage, eight):
    found = eight("stage_meshes:main", stage)
    assert list(found) == [f"{stage}, fsdp", f"{stage}, fsdp+tensor"]
    for case in found.values():
        assert case["finite"]
        assert case["spread"] > case["of"] / 2, "most weights lie in parts"
        assert {path: apart for path, apart in case["apart"].items() if apart > 1e-5} == {}
