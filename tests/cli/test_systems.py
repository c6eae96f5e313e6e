"""The list of systems, on the command line and in the README."""

import json
from pathlib import Path

import pytest

from slm_jax.cli import systems
from slm_jax.cli.main import main
from slm_jax.core.errors import UserError
from slm_jax.systems.catalogue import entries, modules, named_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found():
    return list(entries())


def test_every_size_is_a_config_with_stages_and_counts(found):
    assert [entry["name"] for entry in found][:4] == ["audiolm", "gslm", "pgslm", "twist"]
    for entry in found:
        assert entry["sizes"] and "tiny" in entry["sizes"]
        for about in entry["sizes"].values():
            assert set(about["parameters"]) <= set(about["stages"])
    sizes = {size: about["parameters"]["lm"] for size, about in found[3]["sizes"].items()}
    assert sizes["7b"] == 6_480_400_384


def test_what_is_trained_is_told_where_it_is_not_all(found):
    about = {entry["name"]: entry["sizes"] for entry in found}
    lm = about["twist"]["7b"]
    assert lm["trained"]["lm"] == lm["parameters"]["lm"]
    durations = about["gslm"]["tiny"]  # a vocoder that stays as it is stands around them
    assert 0 < durations["trained"]["durations"] < durations["parameters"]["durations"]
    salmonn = about["salmonn"]["13b"]  # parts from elsewhere, and LoRA in a collection of its own
    assert (salmonn["parameters"]["activation"], salmonn["trained"]["activation"]) == (13_776_303_984, 33_332_992)
    rows = systems.markdown(found).splitlines()
    assert "7b (6.48 B), 13b (12.7 B)" in next(row for row in rows if "`twist`" in row)
    assert "13b (13.8 B, 33.3 M trained)" in next(row for row in rows if "`salmonn`" in row)
    listed = systems.rows(next(entry for entry in found if entry["name"] == "wavprompt"))
    assert listed[-1][-1] == "answers 224 M (99.1 M trained)"


def test_plans_and_figures_that_are_named_are_kept(found):
    for entry in found:
        card = modules()[entry["name"]].CARD
        assert len(entry["plans"]) == len(card.plans)
        assert len(entry["figures"]) == len(card.figures)


def test_the_readme_has_the_table_that_make_docs_writes(found):
    text = (ROOT / "README.md").read_text()
    assert systems.with_table(text, found) == text, "run `make docs`"


def test_a_file_without_marks_is_refused():
    with pytest.raises(UserError, match="0 times"):
        systems.with_table("no table here", [])


def test_json_is_one_value(capfd):
    assert main(["systems", "--json"]) == 0
    listed = [entry["system"] for entry in json.loads(capfd.readouterr().out)]
    assert listed[:4] == ["AudioLM", "GSLM", "pGSLM", "TWIST"]


def test_a_system_is_a_config_by_name():
    assert named_config("gslm").name == "gslm_tiny"
    assert named_config("twist:350m").name == "twist_350m"
    with pytest.raises(UserError, match="did you mean 'gslm'"):
        named_config("gslmm")
    with pytest.raises(UserError, match="size of twist is '7a'"):
        named_config("twist:7a")
