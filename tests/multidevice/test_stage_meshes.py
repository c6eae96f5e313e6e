"""HuBERT's pre-training and a vocoder with its judges train under fsdp, and with tensor beside it, as on one device."""

import json

import pytest

from tests.multidevice.processes import finish


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("stage", ["hubert", "vocoder"])
def test_a_stage_over_eight_devices_equals_one(stage, tmp_path):
    out = tmp_path / "found.json"
    finish([["tests/multidevice/stage_meshes.py", str(out), stage]], tmp_path / "logs", devices=8, patience_s=900)
    found = json.loads(out.read_text())
    assert list(found) == [f"{stage}, fsdp", f"{stage}, fsdp+tensor"]
    for case in found.values():
        assert case["finite"]
        assert case["spread"] > case["of"] / 2, "most weights lie in parts"
        assert {path: apart for path, apart in case["apart"].items() if apart > 1e-5} == {}
