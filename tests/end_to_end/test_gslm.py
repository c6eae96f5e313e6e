"""The whole of GSLM through the real command line: each stage consumes what the one before left."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from slm_jax.cli import demo, evaluate, generate, train
from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.data.pairs.world import KINDS
from slm_jax.evaluation.section import JudgeSettings
from slm_jax.judges.abx import ABXJudge
from slm_jax.training.kept import kept_folder
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext, judging_context, read_run_config

CONFIG = str(Path(__file__).parent / "smallest.py")
pytestmark = pytest.mark.slow(seconds=20)  # whole trainings; the fast suite has tests/reference and tests/golden
STAGES = ["mfcc", "hubert", "units", "lm", "pitch", "vocoder", "durations"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gslm")
    return folder / "run", ["--data-dir", str(folder / "data")]


@pytest.fixture(scope="module")
def first(places):
    run, data = places
    return train.main([CONFIG, "--workdir", str(run), *data])


@pytest.mark.slow(seconds=80)
def test_every_stage_runs_and_leaves_hashed_artifacts(first, places):
    assert [stage["stage"] for stage in first["stages"]] == STAGES
    assert all(stage["seconds"] > 0 for stage in first["stages"])
    for name in STAGES:
        done = json.loads((places[0] / "stages" / name / "done.json").read_text())
        assert done["sha256"]
    consumed = json.loads((places[0] / "stages" / "lm" / "stage.json").read_text())["consumed"]
    made = json.loads((places[0] / "stages" / "units" / "done.json").read_text())["artifact_hash"]
    assert consumed["units"] == made


def test_run_again_it_says_that_all_is_done(first, places):
    run, data = places
    again = train.main([CONFIG, "--workdir", str(run), *data])
    assert [stage["seconds"] for stage in again["stages"]] == [None] * len(STAGES)


def test_generate_needs_only_the_run_folder(first, places, tmp_path):
    run, nowhere = places[0], tmp_path / "nowhere"
    places_of_it = ["--data-dir", str(nowhere), "--out", str(tmp_path)]
    made = generate.main([str(run), "--count", "2", *places_of_it])["made"]
    assert len(made) == 2
    for one in made:
        samples, rate = soundfile.read(one["file"])
        assert rate == 16_000
        assert len(samples) > 1600
        assert np.isfinite(samples).all()
    again = generate.main([str(run), "--count", "2", *places_of_it])["made"]
    assert [one["trace"]["new_units"] for one in again] == [one["trace"]["new_units"] for one in made]
    assert not nowhere.exists()


def test_generate_refuses_what_the_system_does_not_read(first, places):
    with pytest.raises(UserError, match="this system reads speech only"):
        generate.main([str(places[0]), "--text", "hello"])


def test_a_vocoder_without_durations_speaks_too(first, places):
    run = RunFolder(places[0])
    config = read_run_config(run).replace(vocoder_stage="vocoder")
    system = config.load(StageContext(run, config.corpus, places[0]))
    assert config.spoken_by == system.origin.vocoder == "vocoder"
    assert system.frames_per_unit > 1
    (reply,) = system.respond([spoken(np.full(8000, 0.1, np.float32), 16_000)], None, jax.random.key(0))
    assert len(reply.messages[0].speech[0].samples) % 320 == 0


@pytest.fixture(scope="module")
def judged(first, places, tmp_path_factory):
    """(a copy of the run folder, its figures), judged without the corpus."""
    folder = tmp_path_factory.mktemp("judged")
    run, nowhere = folder / "moved", folder / "nowhere"
    shutil.copytree(places[0], run)
    figures = evaluate.main([str(run), "--data-dir", str(nowhere), "--utterances", "4"])
    assert not nowhere.exists()
    return run, figures


def test_evaluate_writes_figures_sounds_and_a_report_and_needs_only_the_run_folder(judged):
    run, figures = judged
    assert {row["feature"] for row in figures["units"]} == {"mfcc 39", "mfcc 13", "hubert layer 1"}
    assert len({row["frames"] for row in figures["units"]}) == 1
    assert figures["language_model"]["model"] > 0
    assert set(figures["pairs"]["tests"]) == {f"world {kind}" for kind in KINDS}
    assert all((run / "pairs" / f"world_{kind}.jsonl").is_file() for kind in KINDS)
    assert set(figures["continuations"]) == {"real", "continuations", "shuffled real"}
    page = (run / "report.html").read_text()
    for file in ("prompt.wav", "resynthesis.wav", "continuation_1.wav", "plots/units.png", "plots/f0.png"):
        assert (run / file).stat().st_size > 1000
        assert file in page


def test_abx_of_units_and_layer_beside_mfcc(judged):
    run = RunFolder(judged[0])
    config = read_run_config(run)
    context = judging_context(config, run, judged[0] / "nowhere", lambda line: None)
    section = ABXJudge().judge(config.load(context), context, JudgeSettings())
    figures = section.figures["abx"]
    assert list(figures) == ["mfcc 39", "hubert layer 1", "units"]
    assert len({row["triplets_within"] for row in figures.values()}) == 1  # the same items of each
    assert all(0 <= row["within"] < 0.6 and row["pairs"] > 10 for row in figures.values())


def test_some_judges_alone_leave_the_figures_of_the_others(judged, capsys):
    run, before = judged
    found = evaluate.main([str(run), "--judges", "language_model", "losses"])
    assert found == {"language_model": before["language_model"]}
    assert json.loads((run / "figures.json").read_text()) == before
    printed = capsys.readouterr().out
    assert "under_bigram" in printed and "phone" not in printed


def test_without_held_out_speech_all_judges_but_that_of_pairs_say_what_was_left_out(first, places, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(places[0], run)
    kept = kept_folder(RunFolder(run))
    for table in (kept.path / "speech" / "test", run / "stages" / "units" / "units" / "test"):
        shutil.rmtree(table)
    kept.finish(["speech", "lengths.json"])
    figures = evaluate.main([str(run), "--data-dir", str(tmp_path / "nowhere"), "--utterances", "2"])
    judges = ("units", "language_model", "resynthesis", "continuations")
    assert figures.keys() == {"units", "pairs", *(f"{name}_left_out" for name in judges)}
    assert figures["units"] == []
    assert capsys.readouterr().out.count("Left out: ") == len(judges)
    assert "Left out: " in (run / "report.html").read_text()


@pytest.mark.slow(seconds=120)
def test_evaluate_finds_the_same_with_the_corpus_and_without(first, places, tmp_path):
    run, (option, data) = places
    found = []
    for name, beside in (("with", data), ("without", str(tmp_path / "nowhere"))):
        shutil.copytree(run, tmp_path / name)
        found.append(evaluate.main([str(tmp_path / name), option, beside, "--utterances", "4"]))
    assert found[0] == found[1]


def test_a_dry_run_keeps_nothing(places, first):
    _, data = places
    result = train.main([CONFIG, "--dry-run", *data, "--only", "mfcc", "hubert"])
    assert result["workdir"] is None
    assert [stage["stage"] for stage in result["stages"]] == ["mfcc", "hubert"]


def test_the_demo_says_that_all_is_done_when_it_is(places, judged, capsys):
    run, data = judged[0], places[1]
    assert (run / "report.html").is_file()
    result = demo.main(["--config", CONFIG, "--workdir", str(run), *data])
    assert "all is done" in capsys.readouterr().err
    assert result["report"] == str(run / "report.html")


def test_another_setting_is_refused_and_redo_runs_it(first, places):
    run, data = places
    change = ["--lm.train.steps", "5"]
    with pytest.raises(UserError, match=r"stages\.3\.train\.steps: 4 -> 5"):
        train.main([CONFIG, "--workdir", str(run), *data, *change])
    redone = train.main([CONFIG, "--workdir", str(run), *data, *change, "--redo", "lm"])
    assert [stage["stage"] for stage in redone["stages"] if stage["seconds"] is not None] == ["lm"]
    assert (run / "stages" / "lm.old1").is_dir()
