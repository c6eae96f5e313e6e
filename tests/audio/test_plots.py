"""Pictures: files that open, of the right shape, that show what they were given."""

import numpy as np
import pytest
from PIL import Image

from slm_jax.audio import plots

SAMPLES = (0.3 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)).astype(np.float32)


def pixels(path):
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert image.shape[0] > 100
    assert image.shape[1] > 500
    return image


def has_colour(image, rgb, at_least=30):
    target = np.round(np.asarray(rgb) * 255 if np.max(rgb) <= 1 else np.asarray(rgb))
    return (np.abs(image - target).max(axis=-1) <= 3).sum() >= at_least


def test_unit_spans_by_hand():
    assert plots.unit_spans(np.array([3, 3, 7, 3]), 50.0) == [(0.0, 0.04, "3"), (0.04, 0.06, "7"), (0.06, 0.08, "3")]
    assert plots.unit_spans(np.zeros(0, int), 50.0) == []


def test_units_under_spectrogram(tmp_path):
    units = np.repeat([5, 17, 5, 42], [10, 15, 14, 10])
    path = plots.plot_units(tmp_path / "a" / "units.png", SAMPLES, 16_000, units, phones=[(0.0, 0.5, "AA")], title="x")
    image = pixels(path)
    for unit in ("5", "17", "42"):
        assert has_colour(image, plots.unit_colour(unit), 500)
    assert not has_colour(image, plots.unit_colour("23"), 500)


def test_losses_draw_every_stage(tmp_path):
    steps = np.arange(100)
    one = pixels(plots.plot_losses(tmp_path / "1.png", {"a": {"x": (steps, 1 / (steps + 1))}}))
    stages = {"a": {"x": (steps, np.where(steps == 50, np.nan, 1.0)), "y": ([0, 50], [1.0, 0.5])}, "b": {"z": ([], [])}}
    two = pixels(plots.plot_losses(tmp_path / "2.png", stages))
    assert two.shape[1] == 2 * one.shape[1]
    assert has_colour(two, (0xEA, 0x58, 0x0C))


def test_f0_and_waveform(tmp_path):
    tracks = {"recorded": np.r_[np.zeros(10), np.full(20, 120.0)], "resynthesised": np.full(30, 130.0)}
    image = pixels(plots.plot_f0(tmp_path / "f0.png", tracks, 0.02, title="F0"))
    assert image.std() > 5
    assert has_colour(pixels(plots.plot_waveform(tmp_path / "w.png", SAMPLES, 16_000)), (0x25, 0x63, 0xEB), 1000)


def test_intervals_and_histograms(tmp_path):
    rows = {
        "all": {"speech": (0.8, (0.7, 0.9)), "control": (0.2, None)},
        "rate": {"speech": (None, None), "control": (0.1, (0.0, 0.3))},
    }
    image = pixels(plots.plot_intervals(tmp_path / "i.png", rows, xlabel="share", title="x"))
    assert has_colour(image, (0x25, 0x63, 0xEB)) and has_colour(image, (0xEA, 0x58, 0x0C))
    pixels(plots.plot_intervals(tmp_path / "none.png", {}))
    one = pixels(plots.plot_histogram(tmp_path / "h.png", {"a": [0.1, 0.2, 0.2]}, xlabel="s"))
    two = pixels(plots.plot_histogram(tmp_path / "h2.png", {"a": [0.1] * 50, "b": np.arange(90.0), "none": []}))
    assert two.shape[1] > one.shape[1]
    points = {"a": (3.0, 0.2, (0.1, 0.3)), "b": (25.0, 0.9, None)}
    image = pixels(plots.plot_points(tmp_path / "p.png", points, "vectors", "errors"))
    assert has_colour(image, (0x25, 0x63, 0xEB)) and has_colour(image, (0xEA, 0x58, 0x0C))
    lines = {"a": [(0.5, 0.2), (1.0, 0.3)], "b": [(2.0, 0.4)]}
    image = pixels(plots.plot_lines(tmp_path / "l.png", lines, "kb/s", "STOI"))
    assert has_colour(image, (0x25, 0x63, 0xEB)) and has_colour(image, (0xEA, 0x58, 0x0C))


@pytest.mark.parametrize("label", ["0", "99", "AA", "<s>"])
def test_colours_are_colours(label):
    assert all(0 <= part <= 1 for part in plots.unit_colour(label))
