"""A run answers items of benchmarks, and writes them as their scripts read them."""

import json
from pathlib import Path

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli.main import main
from slm_jax.data.corpus import WorldConfig
from tests.data.test_benchmarks import audio, write_table
from tests.pipelines.speaking_run import AnsweringRun


@pytest.fixture
def run(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    config = AnsweringRun(name="answers", corpus=WorldConfig(), stages=())
    (place / "run.json").write_text(json.dumps(config.to_json()))
    return place


def test_predictions_of_two_benchmarks(run, tmp_path, capfd):
    rows = [{"audio": audio(i), "prompt": "What?", "reference": "B"} for i in range(2)]
    write_table(tmp_path / "openbookqa" / "test-00000-of-00001.parquet", rows)
    out = ["--out", str(tmp_path / "out"), "--name", "tiny", "--json"]
    assert main(["benchmark", str(run), "voicebench", str(tmp_path / "openbookqa"), *out]) == 0
    told = json.loads(capfd.readouterr().out)
    lines = [json.loads(line) for line in Path(told["file"]).read_text(encoding="utf-8").splitlines()]
    assert told["items"] == 2 and told["file"].endswith("tiny-openbookqa-test-audio.jsonl")
    assert lines == [{"prompt": "What?", "reference": "B", "response": "1"}] * 2

    write_wav(tmp_path / "Task_Set" / "Task_Set_a.wav", 0.1 * np.sin(0.1 * np.arange(8_000)), 16_000)
    (tmp_path / "Task_Set" / "metadata.json").write_text('{"Task_Set_a.wav": {"instruction": "What?", "label": "a"}}')
    assert main(["benchmark", str(run), "dynamic_superb", str(tmp_path / "Task_Set"), *out]) == 0
    told = json.loads(capfd.readouterr().out)
    (found,) = json.loads((tmp_path / "out" / "tiny" / "Task_Set.json").read_text()).values()
    assert told["items"] == 1 and found["sllm_name"] == "tiny" and found["sllm_response"] == "1 What?"


def test_who_cannot_go_on_speaking_is_refused(run, tmp_path, capfd):
    write_wav(tmp_path / "1" / "input.wav", 0.1 * np.sin(0.1 * np.arange(8_000)), 16_000)
    assert main(["benchmark", str(run), "full_duplex", str(tmp_path)]) == 2
    assert "`seconds`" in capfd.readouterr().err
