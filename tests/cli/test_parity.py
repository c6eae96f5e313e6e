"""`parity` as it is typed: tables for people, one JSON list for machines, exit code 1 when something differs."""

import importlib.util
import json

import numpy as np
import pytest

from slm_jax.cli.console import Failed, run_verb
from slm_jax.cli.main import main
from slm_jax.cli.parity import report
from slm_jax.workbench import parity
from slm_jax.workbench.parity import Comparison, Row

KEYS = ["family", "case", "layer", "max_abs", "max_rel", "ref_std", "tolerance", "ok"]


def row(layer: str, ok: bool, max_abs: float | None = 2e-6) -> Row:
    return Row("gpt2", "tiny, plain", layer, max_abs, max_abs, 1.0, 1e-4, ok)


def comparison(*rows: Row, note: str = "") -> Comparison:
    return Comparison("gpt2", "tiny, plain", rows, {}, {}, note)


@pytest.fixture
def torch_is_there():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")


def test_tables_for_people_and_saved_activations(torch_is_there, capsys, tmp_path):
    assert main(["parity", "gpt2", "--save", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "gpt2 tiny, left-padded" in out
    assert "negative control (one entry of blocks/layers/mlp_norm/scale moved by 0.01)" in out
    assert "25 comparisons, all passed" in out
    saved = np.load(tmp_path / "gpt2" / "tiny_left-padded" / "ours.npz")
    assert list(saved) == ["embeddings", "layer_1", "layer_2", "layer_3", "final_norm", "logits"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A hub folder of a small LLaMA."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from slm_jax.interop.model import export
    from slm_jax.interop.references import builders

    drawn = parity.subject_of(builders()["llama"]["one-layer"](3, "float32"))
    return export(drawn.config, drawn.params, tmp_path_factory.mktemp("hub") / "small", family="llama")


def test_a_folder_as_json(torch_is_there, capfd, small, monkeypatch):
    assert main(["parity", "--model", str(small), "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert all(list(one) == KEYS for one in rows)
    assert {one["family"] for one in rows} == {"llama"}
    assert [one["layer"] for one in rows if one["case"] == "small, plain"] == [
        "embeddings",
        "layer_1",
        "final_norm",
        "logits",
    ]
    assert all(one["ok"] and one["max_abs"] <= 1e-5 for one in rows if "control" not in one["case"])
    monkeypatch.setitem(parity.TOLERANCES, "float32", 1e-12)  # below float32's own rounding
    assert main(["parity", "--model", str(small), "--json"]) == 1
    assert not all(one["ok"] for one in json.loads(capfd.readouterr().out))


def test_float64_as_it_is_typed(torch_is_there, small, capfd):
    assert main(["parity", "--model", str(small), "--dtype", "float64", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert max(one["max_rel"] for one in rows if "control" not in one["case"]) < 1e-12


def test_the_report_points_at_the_first_layer_that_differs():
    text = report(comparison(row("embeddings", True), row("layer_1", False, 0.5), row("layer_2", False, None)))
    assert "first difference: layer_1; embeddings before it agrees" in text
    assert text.count("FAILED") == 2
    assert "not comparable" in text
    assert "nothing before it was compared" in report(comparison(row("embeddings", False)))
    assert "first difference" not in report(comparison(row("embeddings", True)))
    assert "was not noticed" in report(comparison(row("logits", False), note="one entry moved"))


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_negative_verdict_is_printed_and_exits_with_1(json_flag, capfd):
    def verb(argv: list[str]) -> list:
        print("for people")
        raise Failed([row("logits", False).to_json()])

    assert run_verb(verb, json_flag) == 1
    out = capfd.readouterr().out
    if json_flag:
        assert json.loads(out)[0]["ok"] is False
    else:
        assert out == "for people\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lama"], "did you mean 'llama'"),
        (["gpt2", "--model", "somewhere"], "its config.json tells the family"),
        (["--model", "nowhere-at-all"], "must be a folder"),
        (["gpt2", "--dtype", "float16"], "float16"),
    ],
)
def test_mistakes_are_one_line(torch_is_there, argv, message, capsys):
    assert main(["parity", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_without_torch_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["parity", "gpt2"]) == 2
    assert (
        capsys.readouterr().err == "error: the PyTorch side needs torch and transformers: pip install -e '.[torch]'\n"
    )
