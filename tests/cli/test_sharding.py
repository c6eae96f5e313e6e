"""Verbs that work in shards, as a person types them: the account as JSON, the same folder again, mistakes by name."""

import json

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli.main import main


@pytest.fixture
def told(tmp_path):
    """A manifest of three hums, one of them gone."""
    rows = [{"audio_filepath": f"{i}.wav", "text": f"{'la ' * (i + 1)}la", "tone": "high"} for i in range(3)]
    for i in range(2):
        write_wav(tmp_path / f"{i}.wav", 0.1 * np.sin(0.1 * np.arange(8_000 + i)), 16_000)
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def asked(told, *options):
    return ["prepare", f"manifest:{told / 'told.jsonl'}", "--data-dir", str(told / "data"), *options]


def test_tasks_are_accounted_for(told, capfd):
    tasks = ["--tasks", "transcription", "translation", "--translations", "tone=Tones", "--workers", "1", "--json"]
    assert main(asked(told, *tasks)) == 0
    first = json.loads(capfd.readouterr().out)
    assert first["rejected"] == {"missing": 1} and first["tasks"]["made"] >= 1 and first["tasks"]["kept"] == 0
    assert sum(first["tasks"]["rows"].values()) == 4
    assert main(asked(told, *tasks)) == 0
    again = json.loads(capfd.readouterr().out)["tasks"]
    assert again["made"] == 0 and again["folder"] == first["tasks"]["folder"].strip()
    assert main(["prepare", f"tasks:{again['folder']}", "--json"]) == 0
    assert sum(json.loads(capfd.readouterr().out)["accepted"].values()) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tasks", "transcripts"], "transcription"),
        (["--tasks", "translation"], "german=German"),
        (["--translations", "german=German"], "go with --tasks"),
        (["--tasks", "translation", "--translations", "german"], "field=Language"),
        (["--tasks", "question", "--runner", "flinc"], "flink"),
        (["--tasks", "question", "--beam", "project=a"], "those of Beam"),
    ],
)
def test_mistakes_are_one_line(told, capfd, options, words):
    assert main(asked(told, *options)) == 2
    assert words in capfd.readouterr().err.splitlines()[-1]


def test_speak_says_what_is_missing(told, capfd):
    assert main(["speak", str(told / "none.jsonl")]) == 2
    assert "no such file" in capfd.readouterr().err
