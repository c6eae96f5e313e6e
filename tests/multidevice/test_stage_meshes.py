"""HuBERT's pre-training and a vocoder with its judges train under fsdp, and with tensor beside it, as on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow(seconds=100)
@pytest.mark.parametrize("stage", ["hubert", "vocoder"])
def test_a_stage_over_eight_devices_equals_one(stage, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    }
    out = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "tests" / "multidevice" / "stage_meshes.py"), str(out), stage]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(out.read_text())
    assert list(found) == [f"{stage}, fsdp", f"{stage}, fsdp+tensor"]
    for case in found.values():
        assert case["finite"]
        assert case["spread"] > case["of"] / 2, "most weights lie in parts"
        assert {path: apart for path, apart in case["apart"].items() if apart > 1e-5} == {}
