"""What a duplex system says, in folders that Full-Duplex-Bench scores: its measures agree with the judge's."""

import json

import pytest
import soundfile

from slm_jax.data.benchmarks.full_duplex import samples_below
from slm_jax.evaluation.section import Lacking
from slm_jax.judges.full_duplex import answer_samples, write_turns
from tests.judges.listeners import Listener
from tests.judges.test_turns import JUDGE, Talker


def takes_turn(sample):
    """The benchmark's rule: a second of speech, or more than three words."""
    chunks = json.loads((sample / "output.json").read_text())["chunks"]
    if not chunks:
        return False, None
    start, end = chunks[0]["timestamp"][0], chunks[-1]["timestamp"][1]
    return end - start >= 1 or len(chunks) > 3, start


def rates(folder, task):
    found = [takes_turn(sample) for sample in samples_below(folder / task)]
    return sum(taken for taken, _ in found) / len(found)


def test_patience_and_haste_are_seen_in_the_files(context, tmp_path):
    """One who waits takes no turn in a pause; one who never speaks takes none at all; who is hasty waits for nobody."""
    written = write_turns(tmp_path / "patient", JUDGE, Talker(0.9), context, 4)
    assert written == {"smooth_turn_taking": 4, "pause_handling": 4, "user_interruption": 4}
    assert rates(tmp_path / "patient", "smooth_turn_taking") == 1.0
    write_turns(tmp_path / "hasty", JUDGE, Talker(0.1, gives_way=False, speaks=4.0), context, 4)
    for who, speaks in {"patient": False, "hasty": True}.items():
        for sample in samples_below(tmp_path / who / "pause_handling"):
            (pause,) = json.loads((sample / "pause.json").read_text())
            start = takes_turn(sample)[1]
            assert (start is not None and pause["timestamp"][0] < start < pause["timestamp"][1]) == speaks
    write_turns(tmp_path / "silent", JUDGE, Talker(100.0), context, 4)
    assert rates(tmp_path / "silent", "smooth_turn_taking") == rates(tmp_path / "silent", "user_interruption") == 0.0
    (sample, *_) = samples_below(tmp_path / "patient" / "smooth_turn_taking")
    (note,) = json.loads((sample / "turn_taking.json").read_text())
    assert takes_turn(sample)[1] - note["timestamp"][0] == pytest.approx(0.9, abs=0.05)
    lengths = {soundfile.info(sample / name).frames for name in ("input.wav", "output.wav")}
    assert len(lengths) == 1 and soundfile.info(sample / "output.wav").samplerate == 16_000


def test_an_interruption_says_what_was_said(context, tmp_path):
    write_turns(tmp_path, JUDGE, Talker(0.3), context, 3)
    (sample, *_) = samples_below(tmp_path / "user_interruption")
    (note,) = json.loads((sample / "interrupt.json").read_text())
    assert note["context"] == "seven grey cats sleep" and note["interrupt"] == "five old men sing"
    taken, start = takes_turn(sample)
    assert taken and start >= note["timestamp"][1]


def test_samples_of_the_benchmark_get_outputs_of_their_length(context, tmp_path):
    write_turns(tmp_path, JUDGE, Talker(100.0), context, 2)
    for sample in samples_below(tmp_path):
        (sample / "output.wav").unlink()
    assert answer_samples(tmp_path, Talker(0.2), words=False) == 6
    for sample in samples_below(tmp_path):
        assert soundfile.info(sample / "output.wav").frames == soundfile.info(sample / "input.wav").frames


def test_who_takes_turns_anyway_writes_nothing(context, bare, tmp_path):
    with pytest.raises(Lacking, match="does not speak while it hears"):
        write_turns(tmp_path, JUDGE, Listener(("yes",) * 8), context, 4)
    with pytest.raises(Lacking, match="two held-out questions"):
        write_turns(tmp_path, JUDGE, Talker(0.5), bare, 4)
    assert not list(tmp_path.iterdir())
