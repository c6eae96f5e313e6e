"""The table of chips."""

from types import SimpleNamespace

import jax
import pytest

from slm_jax.parallel.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_device_names_its_chip(kind, name):
    assert chip_of(SimpleNamespace(device_kind=kind)) is CHIPS[name]


def test_a_cpu_has_no_chip():
    assert chip_of(jax.devices("cpu")[0]) is None


def test_two_devices_share_what_their_chip_has():
    chip = CHIPS["tpu7x"]
    assert chip.device_flops == chip.peak_bf16_flops / 2
    assert chip.device_hbm_bytes_per_s == chip.hbm_bytes_per_s / 2
    assert chip.device_memory <= chip.hbm_bytes // 2


def test_links_of_the_worst_placed_chip():
    v5e, v5p = CHIPS["v5e"], CHIPS["v5p"]
    assert v5e.ring_bytes_per_s((16, 16)) == v5e.ici_bytes_per_s  # a torus: every link is there
    assert v5e.ring_bytes_per_s((4, 4)) == v5e.ici_bytes_per_s / 2  # a corner has two of four neighbours
    assert v5p.ring_bytes_per_s((4, 4, 4)) == v5p.ici_bytes_per_s
    assert v5p.ring_bytes_per_s((2, 2, 1)) == v5p.ici_bytes_per_s / 3
    assert v5p.ring_bytes_per_s((2, 4, 4)) == v5p.ici_bytes_per_s / 2  # no whole cube: all axes are open
    assert v5e.ring_bytes_per_s((8, 16)) == 3 * v5e.ici_bytes_per_s / 4  # its long axis alone is a ring
    assert v5e.ring_bytes_per_s((1, 1)) == 0


def test_no_ceiling_is_missing():
    for chip in CHIPS.values():
        assert chip.hbm_bytes // chip.devices >= chip.device_memory > 0
        assert chip.peak_bf16_flops > 1e14 > chip.hbm_bytes_per_s > chip.ici_bytes_per_s
