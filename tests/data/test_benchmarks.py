"""Files of benchmarks, made here in their published forms: read as questions, written as their scripts read them."""

import io
import json

import numpy as np
import pytest
import soundfile

from slm_jax.audio.files import read_audio, write_wav
from slm_jax.core.errors import UserError
from slm_jax.data.benchmarks.dynamic_superb import read_dynamic_superb, write_dynamic_superb
from slm_jax.data.benchmarks.full_duplex import chunks_of, read_input, samples_below, write_input, write_output
from slm_jax.data.benchmarks.voicebench import read_voicebench, write_voicebench

pyarrow = pytest.importorskip("pyarrow")


def tone(number, count=800):
    return (0.25 * np.sin(0.05 * (number + 1) * np.arange(count))).astype(np.float32)


def audio(number, rate_hz=16_000):
    """A recording as the hub's tables hold it."""
    data = io.BytesIO()
    soundfile.write(data, tone(number), rate_hz, format="WAV", subtype="FLOAT")
    return {"bytes": data.getvalue(), "path": f"{number}.wav"}


def write_table(path, rows):
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def voicebench(tmp_path):
    """Two subsets: one in two files, one of multiple choice."""
    rows = [{"audio": audio(i), "prompt": f"Question {i}?", "output": f"Answer {i}."} for i in range(5)]
    write_table(tmp_path / "alpacaeval" / "test-00000-of-00002.parquet", rows[:3])
    write_table(tmp_path / "alpacaeval" / "test-00001-of-00002.parquet", rows[3:])
    choice = {"audio": audio(9, 8_000), "prompt": "Which?", "reference": "B", "kwargs": [{"n": 1}, {"n": None}]}
    write_table(tmp_path / "openbookqa" / "test-00000-of-00001.parquet", [choice])
    return tmp_path


def test_voicebench_is_asked_and_answered_line_by_line(voicebench, tmp_path):
    items = read_voicebench(voicebench, "alpacaeval")
    assert [item.fields["prompt"] for item in items] == [f"Question {i}?" for i in range(5)]
    (asked,) = items[3].conversation()
    np.testing.assert_array_equal(asked.speech[0].samples, tone(3))
    assert asked.kinds == {"speech"} and asked.speech[0].rate_hz == 16_000
    told = {"model": "tiny", "subset": "alpacaeval"}
    path = write_voicebench(tmp_path / "out", items, [f"said {i}" for i in range(5)], **told)
    assert path.name == "tiny-alpacaeval-test-audio.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[4] == {"prompt": "Question 4?", "output": "Answer 4.", "response": "said 4"}
    with pytest.raises(UserError, match="4 responses to 5 items"):
        write_voicebench(tmp_path / "out", items, ["said"] * 4, **told)


def test_voicebench_keeps_what_its_evaluators_read(voicebench):
    (item,) = read_voicebench(voicebench, "openbookqa", modality="text", count=3)
    assert item.conversation()[0].text == "Which?" and not item.clips
    assert item.fields == {"prompt": "Which?", "reference": "B", "kwargs": [{"n": 1}, {"n": None}]}
    assert read_voicebench(voicebench, "openbookqa")[0].clips[0].rate_hz == 8_000


def test_voicebench_that_is_not_there_is_named(voicebench):
    with pytest.raises(UserError, match="alpacaeval, openbookqa"):
        read_voicebench(voicebench, "alpaca")
    with pytest.raises(UserError, match=r"split is 'usa'.*has test"):
        read_voicebench(voicebench, "alpacaeval", "usa")
    write_table(voicebench / "mtbench" / "test-00000-of-00001.parquet", [{"audio1": audio(1), "turns": ["a", "b"]}])
    with pytest.raises(UserError, match="no audio and prompt"):
        read_voicebench(voicebench, "mtbench")
    (voicebench / "sd-qa").mkdir()
    (voicebench / "sd-qa" / "usa-00000-of-00001.parquet").write_bytes(b"PAR1 of something else")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_voicebench(voicebench, "sd-qa", "usa")


@pytest.fixture
def superb(tmp_path):
    """One task in both forms: two items, the second with a pair of recordings."""
    task, told = tmp_path / "SpeakerVerification_Made", {}
    rows = []
    for number, pair in enumerate((False, True)):
        fields = {"file": f"{number}.flac", "instruction": "Is it one speaker?", "label": ("yes", "no")[number]}
        name = f"{task.name}_{number}.wav"
        write_wav(task / name, tone(number), 16_000)
        if pair:
            write_wav(task / f"{task.name}_{number}_pair2.wav", tone(7), 16_000)
        told[name] = fields
        rows.append({"audio": audio(number), "audio2": audio(7) if pair else None, **fields})
    (task / "metadata.json").write_text(json.dumps(told))
    write_table(tmp_path / "hub" / task.name / "data" / "test-00000-of-00001.parquet", rows)
    return task, tmp_path / "hub" / task.name


def test_dynamic_superb_in_both_forms(superb, tmp_path):
    listed, tabled = (read_dynamic_superb(folder) for folder in superb)
    assert [item.id for item in listed] == [item.id for item in tabled] == list(map(listed_name, range(2)))
    assert [len(item.clips) for item in listed] == [len(item.clips) for item in tabled] == [1, 2]
    np.testing.assert_allclose(listed[1].clips[1].samples, tabled[1].clips[1].samples, atol=1e-4)
    (asked,) = listed[1].conversation()
    assert asked.text == "Is it one speaker?" and len(asked.speech) == 2 and asked.parts[-1].text
    path = write_dynamic_superb(tmp_path / "out", listed, ["yes", "nein, äh"], model="tiny", task=superb[0].name)
    assert path.relative_to(tmp_path / "out").as_posix() == "tiny/SpeakerVerification_Made.json"
    found = json.loads(path.read_text(encoding="utf-8"))[listed_name(1)]
    assert found == {**listed[1].fields, "sllm_name": "tiny", "sllm_response": "nein, äh"}
    assert len(read_dynamic_superb(superb[0], count=1)) == 1


def listed_name(number):
    return f"SpeakerVerification_Made_{number}.wav"


def test_dynamic_superb_that_lacks_something_is_named(superb, tmp_path):
    with pytest.raises(UserError, match=r"neither metadata.json nor dev-"):
        read_dynamic_superb(superb[1], split="dev")
    (superb[0] / listed_name(0)).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_dynamic_superb(superb[0])
    (superb[0] / "metadata.json").write_text(json.dumps({listed_name(1): {"label": "no"}}))
    with pytest.raises(UserError, match="'instruction' are needed"):
        read_dynamic_superb(superb[0])


def test_full_duplex_samples(tmp_path):
    notes = {"turn_taking": [{"text": "[TURN-TAKING]", "timestamp": [0.1, 0.2]}]}
    for name in ("10", "2"):
        write_input(tmp_path / "task" / name, tone(1, 8_000), 8_000, notes)
    assert [path.name for path in samples_below(tmp_path)] == ["2", "10"]
    sample = samples_below(tmp_path)[0]
    assert json.loads((sample / "turn_taking.json").read_text()) == notes["turn_taking"]
    assert len(read_input(sample, 8_000)) == 8_000 and soundfile.info(sample / "input.wav").samplerate == 16_000
    write_output(sample, tone(2, 4_000), 8_000, length_s=1.0, words="yes it is", spans=[(0.1, 0.4)])
    heard = read_audio(sample / "output.wav")
    assert len(heard) == 16_000 and np.abs(heard[8_100:]).max() == 0
    told = json.loads((sample / "output.json").read_text())
    assert told["text"] == "yes it is" and len(told["chunks"]) == 3
    write_output(sample, tone(2, 16_000), 8_000, length_s=1.0)
    assert len(read_audio(sample / "output.wav")) == 16_000
    with pytest.raises(UserError, match=r"no folder in it has an input.wav"):
        samples_below(tmp_path / "task" / "nowhere")


def test_words_lie_where_the_voice_is():
    chunks = chunks_of("abcd ef gh", [(1.0, 2.0), (4.0, 5.0)])
    assert [chunk["text"] for chunk in chunks] == ["abcd", "ef", "gh"]
    assert [chunk["timestamp"] for chunk in chunks] == [[1.0, 2.0], [4.0, 4.5], [4.5, 5.0]]
    assert chunks_of("abcd", []) == [] and chunks_of("", []) == []
    assert [chunk["timestamp"] for chunk in chunks_of("", [(0.5, 0.75), (1.0, 1.25)])] == [[0.5, 0.75], [1.0, 1.25]]


def test_what_was_said_before_an_interruption_is_not_its_answer(tmp_path):
    spans = [(0.1, 0.4), (0.6, 0.9)]
    write_output(tmp_path, tone(2, 16_000), 16_000, words="first second", spans=spans, after_s=0.7)
    chunks = json.loads((tmp_path / "output.json").read_text())["chunks"]
    assert chunks[0]["timestamp"][0] == 0.7 and chunks[-1]["timestamp"][1] == 0.9
