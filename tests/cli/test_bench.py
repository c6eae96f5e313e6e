import json
import shutil
from functools import partial

import pytest

from slm_jax.cli import bench
from slm_jax.cli.console import run_verb
from slm_jax.core.errors import UserError
from slm_jax.workbench import bench_machine

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROW = {
    "case": "a",
    "equal": True,
    "ours_ms": 10.0,
    "reference": "eager",
    "reference_ms": 20.0,
    "ratio": 2.0,
    "ratio_p10": 1.9,
    "ratio_p90": 2.1,
    "floor_ms": 1.0,
    "compile_s": 3.0,
    "max_difference": 1e-6,
    "tolerance": 1e-4,
}


@pytest.mark.slow(seconds=40)
def test_json_has_one_row_per_case(capfd, monkeypatch):
    monkeypatch.setattr(bench_machine, "fresh_compilation", lambda: None)  # it would outlast the test
    monkeypatch.setattr(bench_machine, "ceilings", partial(bench_machine.ceilings, repeats=1, size=128, megabytes=4))
    assert run_verb(bench.main, ["hifigan_v1_10s", "--quick", "--pairs", "1", "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)
    assert {"case", "ours_ms", "reference", "reference_ms", "ratio", "floor_ms", "machine"} <= row.keys()
    assert row["case"] == "hifigan_v1_10s" and row["equal"] and row["quick"] and row["pairs"] == 1
    assert {"processor", "cores", "load", "versions", "gflop_s", "gbyte_s"} <= row["machine"].keys()


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_quicker_of_eager_and_compiled_pytorch_is_the_reference(capfd, monkeypatch):
    monkeypatch.setattr(bench_machine, "fresh_compilation", lambda: None)
    monkeypatch.setattr(bench_machine, "ceilings", partial(bench_machine.ceilings, repeats=1, size=128, megabytes=4))
    assert run_verb(bench.main, ["gpt2_small_train", "--quick", "--compile", "--pairs", "1", "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)
    assert row["equal"] and set(row["tried_ms"]) == {"eager", "torch.compile"}
    assert row["reference"] == min(row["tried_ms"], key=row["tried_ms"].get)


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["hubert_bas_10s"], "did you mean 'hubert_base_10s'"), (["--pairs", "0"], "pairs"), (["--dtype", "x"], "dtype")],
)
def test_mistakes_are_told_in_one_line(argv, message):
    with pytest.raises(UserError, match=message):
        bench.main(argv)


def test_the_table_says_what_was_not_timed():
    wrong = ROW | {"equal": False, "ours_ms": None, "max_difference": 0.5}
    assert "NOT TIMED: outputs differ by 0.5, allowed are 0.0001" in bench.cells(wrong)[-1]
    assert len(bench.cells(wrong)) == len(bench.cells(ROW)) == len(bench.COLUMNS)
    assert bench.cells(ROW)[:5] == ["a", "10.0", "20.0", "2.00", "1.90-2.10"]


def test_a_busy_machine_is_called_so():
    about = {"processor": "P", "cores": 2, "devices": ["cpu"], "versions": {"jax": "1", "torch": None}}
    limits = {"gflop_s": 1.0, "gbyte_s": 1.0}
    assert "busy" in bench.heading(about | {"load": (1.5, 0, 0)}, limits, 7)
    assert "busy" not in bench.heading(about | {"load": (0.1, 0, 0)}, limits, 7)
