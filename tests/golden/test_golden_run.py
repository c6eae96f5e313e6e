"""A run folder of an earlier version still answers, is judged, and goes on with its training."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slm_jax.checkpoints.manager import restore_params
from slm_jax.cli import evaluate, generate, train
from slm_jax.evaluation.pairs import rescored
from tests.golden.sounds import write

HERE = Path(__file__).parent
CONFIG = """import json, pathlib
from slm_jax.core.config import from_json
config = from_json(json.loads(pathlib.Path("run/run.json").read_text()))
"""
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The unpacked run folder; its corpus is the folder `sounds` beside it, which is not there."""
    with tarfile.open(HERE / "gslm.tar.xz") as archive:
        archive.extractall(tmp_path / "run", filter="data")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def traces(made):
    return [{name: one["trace"][name] for name in ("prompt_units", "new_units")} for one in made]


def test_it_answers_as_it_did(run):
    made = generate.main([str(run), "--count", "2", "--out", "said"])["made"]
    assert traces(made) == EXPECTED["continued"]
    samples, rate = soundfile.read("said/sound-03.wav")
    before, _ = soundfile.read(HERE / "sound-03.flac")
    assert rate == 16_000
    # Machines round differently, and where the wave is steepest single samples show it: seen -70 dB and .007 at most
    error, scale = np.asarray(samples - before), np.sqrt(np.mean(before**2))
    assert np.sqrt(np.mean(error**2)) < 1e-3 * scale and np.abs(error).max() < 2e-2


def test_it_is_prompted_as_it_was(run):
    write(Path("sounds"))
    made = generate.main([str(run), "--prompts", "sounds/sound-00.flac", "--count", "2", "--seed", "3"])["made"]
    assert traces(made) == EXPECTED["prompted"]


def test_it_is_judged_as_it_was(run):
    figures = evaluate.main([str(run), "--utterances", "4"])
    assert_close(figures, EXPECTED["figures"])


def test_a_judge_that_is_younger_than_the_run_is_asked_by_name(run, capsys):
    write(Path("sounds"))
    for number, sound in enumerate(sorted(Path("sounds").glob("*.flac"))[:4]):
        sound.rename(Path("sounds") / f"{number}_take.flac")
    for sound in Path("sounds").glob("sound-*"):
        sound.unlink()
    figures = evaluate.main([str(run), "--judges", "pairs", "--pairs", "sounds"])["pairs"]
    assert figures["tests"]["sounds"]["pairs"] == 2
    assert rescored("run/pairs/sounds.jsonl") == figures
    assert "accuracy (mean ln p)" in capsys.readouterr().out


def test_it_goes_on_from_its_checkpoint(run):
    """The language model is taken back to step 2 of 4 and trained on to where the old code came."""
    write(Path("sounds"))
    stage = run / "stages" / "lm"
    before = restore_params(stage / "checkpoints", item="params").trees["params"]
    shutil.rmtree(stage / "checkpoints" / "00000004")
    (stage / "done.json").unlink()
    Path("same.py").write_text(CONFIG)
    train.main(["same.py", "--workdir", str(run), "--data-dir", "data", "--only", "lm"])
    after = restore_params(stage / "checkpoints", item="params").trees["params"]
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 4]
    for path, leaf in flat(before).items():
        np.testing.assert_allclose(flat(after)[path], leaf, atol=2e-5, err_msg=path)


def flat(tree, path=""):
    """Arrays by path."""
    if not isinstance(tree, dict):
        return {path: np.asarray(tree)}
    return {key: leaf for name, inner in tree.items() for key, leaf in flat(inner, f"{path}/{name}").items()}


def assert_close(now, before, path="figures"):
    """Every figure of before is there now, and near."""
    if isinstance(before, dict):
        for name in before:
            assert_close(now[name], before[name], f"{path}.{name}")
    elif isinstance(before, list):
        assert len(now) == len(before), path
        for i, (a, b) in enumerate(zip(now, before, strict=True)):
            assert_close(a, b, f"{path}.{i}")
    elif isinstance(before, float):
        assert now == pytest.approx(before, rel=2e-2, abs=2e-2), path
    else:
        assert now == before, path
