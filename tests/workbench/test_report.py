import re

import pytest

from slm_jax.workbench.report import Report, show


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
