import re

import numpy as np
import pytest

from slm_jax.evaluation.section import Plot, Section, Sound, Table
from slm_jax.workbench.report import Report, report_of, show


def test_page_has_relative_links_and_escapes(tmp_path):
    (tmp_path / "plots").mkdir()
    report = Report(tmp_path, "A <title>", lead="x & y")
    report.section("Numbers", "a < b")
    report.table(["unit", "loss"], [["<s>", 1.23456], ["n", 12345]])
    report.image(tmp_path / "plots" / "loss.png", 'the "loss"')
    report.sounds([(tmp_path / "prompt.wav", "prompt")])
    text = report.write().read_text()
    assert re.findall(r'src="([^"]+)"', text) == ["plots/loss.png", "prompt.wav"]
    assert "A &lt;title&gt;" in text and "a &lt; b" in text and "&lt;s&gt;" in text
    assert "1.235" in text and "12,345" in text
    assert str(tmp_path) not in text


def test_a_file_outside_the_folder_is_refused(tmp_path):
    with pytest.raises(ValueError):
        Report(tmp_path / "inside", "t").image(tmp_path / "outside.png", "c")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (True, "yes"), (0.5, "0.500"), (123456.0, "123,456"), ("a", "a")]
)
def test_cells(value, text):
    assert show(value) == text


def test_the_page_is_a_loop_over_sections_with_what_is_heard_first(tmp_path):
    drawn = []
    sections = [
        Section("Numbers", "Few.", tables=[Table(["a", "b"], [[1, 2.5]]), Table(["c"], [["<x>"]], title="More")]),
        Section("Left", "Left out: no phones."),
        Section(
            "Voice",
            sounds=[Sound("hello", np.zeros(1600, np.float32), 16_000, "Hello & bye")],
            plots=[Plot("wave", lambda path: drawn.append(path), "A wave")],
        ),
    ]
    page = report_of(tmp_path, "Run", "What it does.", sections, "evaluate it").read_text()
    assert re.findall(r"<h[23]>(.*?)</h[23]>", page) == ["Listen", "Numbers", "More", "Left", "Voice"]
    assert re.findall(r'src="([^"]+)"', page) == ["hello.wav", "plots/wave.png"]
    assert drawn == [tmp_path / "plots" / "wave.png"]
    assert (tmp_path / "hello.wav").stat().st_size > 3200
    for text in ("Hello &amp; bye", "A wave", "2.500", "&lt;x&gt;", "Left out: no phones.", "evaluate it"):
        assert text in page


def test_without_sounds_nothing_is_to_be_heard(tmp_path):
    page = report_of(tmp_path, "Run", "", [Section("Numbers", "Few.")], "evaluate it").read_text()
    assert "Listen" not in page and 'sounds">' not in page
