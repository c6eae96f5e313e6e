"""A part over eight devices: each holds its share only, and the host never the whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slm_jax.interop.model import export, open_model
from slm_jax.interop.streaming import import_streamed
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import llama
from tests.multidevice.processes import ROOT, environment
from tests.training.small_parts import TEXT, text_params

LARGE = llama("7b", vocabulary=64, layers=8, width=768, heads=8, kv_heads=8, hidden=2048, max_positions=32)
LAYER = 4 * 768 * 2048
"""Bytes of the largest leaf of a layer in the file."""
ROOM = 24 * 2**20
"""What the compiler and the allocator take beside the arrays."""


def written(config: DecoderConfig, folder: Path) -> Path:
    """The folder with the model folders `hub` and `ours`, weights drawn."""
    export(config, text_params(config=config), folder / "hub")
    import_streamed(open_model(folder / "hub"), folder / "ours", {})
    return folder


def told_alone(folder: Path) -> dict:
    """What a process of its own says of its memory."""
    large_blocks = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}  # they go back at once: what is measured is what is held
    command = [sys.executable, "-m", "tests.multidevice.eight", "parts_on_eight:memory", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(8) | large_blocks, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_shared_out(found: dict) -> None:
    """Every device holds an eighth of every matrix (vectors of norms are whole everywhere)."""
    matrices = [
        (size, held)
        for shape, size, held in found.values()
        if len(shape) > 2 or (len(shape) == 2 and min(shape) > LARGE.layers)
    ]
    assert len(matrices) >= 5
    for size, held in matrices:
        assert held == [size // 8] * 8


def test_training_serving_and_plan_hold_a_share_of_a_frozen_part(eight, tmp_path):
    found = eight("parts_on_eight:training", str(written(TEXT, tmp_path)))
    assert_shared_out(found["trained"])
    assert sorted(found["trained"].values()) == sorted(found["served"].values())
    assert found["planned"] == sum(held[0] for _, _, held in found["served"].values())


@pytest.mark.slow(seconds=60)
def test_the_host_holds_the_shares_and_a_layer(tmp_path):
    found = told_alone(written(LARGE, tmp_path))
    whole = found["ways"].pop("whole")
    assert whole["grown"] > 0.8 * whole["bytes"], "or the measure is blind"
    for way, figures in found["ways"].items():
        print(way, figures["grown"], figures["bytes"])
        assert_shared_out(figures["shares"])
        assert 0.8 * figures["bytes"] < figures["grown"] < figures["bytes"] + LAYER + ROOM, way
    assert len(set(found["sums"])) == 1
