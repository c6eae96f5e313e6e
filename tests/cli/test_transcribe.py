"""`transcribe` as it is typed: words for people, one JSON value for machines, exit codes for scripts."""

import json

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.cli.main import main
from slm_jax.interop.model import export
from slm_jax.serving.transcriber import load_transcriber
from tests.interop.test_model import CONFIGS, drawn
from tests.serving.drawn import noise
from tests.whisper_folder import write_whisper

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("hub") / "whisper")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Three good files, one of them long, and two that hold no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in {"a": 0.2, "b": 0.3, "long": 0.7}.items():
        write_wav(folder / f"{name}.wav", noise(seconds, len(name)), RATE)
    (folder / "broken.wav").write_bytes(b"no sound at all")
    write_wav(folder / "short.wav", 0.1 * np.ones(100), RATE)
    return folder


@pytest.fixture(scope="module")
def said(model, sounds):
    from slm_jax.audio.files import read_audio

    names = ("a", "b", "long")
    return dict(zip(names, load_transcriber(model).transcribe([read_audio(sounds / f"{n}.wav") for n in names])))


def paths(folder, *names):
    return [str(folder / f"{name}.wav") for name in names]


def test_one_recording_is_its_words(model, sounds, said, capsys):
    assert main(["transcribe", str(model), *paths(sounds, "a")]) == 0
    assert capsys.readouterr().out == f"{said['a'].text}\n"


def test_several_recordings_as_json(model, sounds, said, capfd):
    files = paths(sounds, "a", "long", "a")
    assert main(["transcribe", str(model), *files, "--rows", "2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["model"] == str(model)
    assert [row["file"] for row in found["transcripts"]] == files
    assert [row["text"] for row in found["transcripts"]] == [said[name].text for name in ("a", "long", "a")]
    long = found["transcripts"][1]
    assert (long["language"], long["seconds"]) == (said["long"].language, pytest.approx(0.7))
    assert [tuple(window.values()) for window in long["windows"]] == list(said["long"].windows)
    assert list(long["windows"][0]) == ["start_s", "end_s", "text"] and len(long["windows"]) >= 2


def test_a_broken_file_is_said_and_the_others_go_on(model, sounds, said, capsys):
    files = paths(sounds, "a", "broken", "b")
    assert main(["transcribe", str(model), *files]) == 1
    out, err = capsys.readouterr()
    assert out == f"{files[0]}: {said['a'].text}\n{files[2]}: {said['b'].text}\n"
    assert err.startswith("error: ") and "broken.wav" in err and err.count("\n") == 1


def test_a_broken_file_has_its_reason_in_the_json(model, sounds, said, capfd):
    assert main(["transcribe", str(model), *paths(sounds, "broken", "b"), "--json"]) == 1
    broken, good = json.loads(capfd.readouterr().out)["transcripts"]
    assert list(broken) == ["file", "error"] and "unreadable" in broken["error"]
    assert good["text"] == said["b"].text


def test_nothing_that_can_be_used_is_a_mistake(model, sounds, capsys):
    assert main(["transcribe", str(model), *paths(sounds, "broken", "short", "absent")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == "error: none of the 3 recordings can be used"
    for line, reason in zip(err.splitlines(), ("unreadable", "too_short", "missing"), strict=False):
        assert reason in line
    assert main(["transcribe", str(model), *paths(sounds, "short")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_reach_the_model(model, sounds, said, capsys):
    told = ["--language", "cs", "--task", "translate", "--max-new", "2", "--beams", "2", "--dtype", "bfloat16"]
    assert main(["transcribe", str(model), *paths(sounds, "a"), *told]) == 0
    words = capsys.readouterr().out.split()
    assert 1 <= len(words) <= 2


@pytest.mark.parametrize(
    "more, message",
    [
        (["--language", "xx"], "error: language is 'xx': must be one of cs, en, nl"),
        (["--max-new", "99"], "error: max_new is 99: the decoder has room for 20"),
        (["--beams", "0"], "error: beams is 0"),
        (["--rows", "0"], "error: --rows is 0: must be at least 1"),
    ],
)
def test_mistakes_are_one_line(model, sounds, more, message, capsys):
    assert main(["transcribe", str(model), *paths(sounds, "a"), *more]) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_no_recordings_and_other_models_are_refused_in_one_line(model, sounds, tmp_path, capsys):
    llama = export(CONFIGS["llama"], drawn(CONFIGS["llama"]), tmp_path / "llama")
    for argv, message in (
        ([str(model)], "recordings is 'none': name at least one audio file"),
        ([str(llama), *paths(sounds, "a")], "it holds a DecoderConfig, and a Whisper model is needed"),
        ([str(tmp_path), *paths(sounds, "a")], "has neither config.json"),
        ([str(tmp_path / "absent"), *paths(sounds, "a")], "there is no such folder"),
    ):
        assert main(["transcribe", *argv]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_a_converted_folder_says_the_same(model, sounds, said, tmp_path, capsys):
    assert main(["convert", str(model), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    capsys.readouterr()
    for folder in ("ours", "back"):
        assert main(["transcribe", str(tmp_path / folder), *paths(sounds, "b")]) == 0
        assert capsys.readouterr().out == f"{said['b'].text}\n"
