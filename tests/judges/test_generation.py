import dataclasses
import json

import jax
import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech
from slm_jax.evaluation.generated_text import load_text_scorer, read_transcripts, score_transcripts
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.generation import GenerationJudge
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.judges.conftest import prepared
from tests.judges.listeners import Listener
from tests.serving.drawn import drawn_unit_speech_lm, noise
from tests.shapes import WHISPER
from tests.text_lm_folder import write_text_lm
from tests.whisper_folder import write_whisper

RATE_HZ, COUNT = 16_000, 3
SETTINGS = JudgeSettings(utterances=COUNT)
GROUPS = ["recorded", "continuations", "recorded, from units", "shuffled units", "shuffled words"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Three held-out items that go on for more than a second after their opening, and one that does not."""
    folder = tmp_path_factory.mktemp("speech")
    for number in range(4):
        write_wav(folder / f"{number}.wav", noise(1.6 if number else 1.0, seed=number), RATE_HZ)
    rows = [{"audio_filepath": f"{number}.wav", "id": str(number), "split": "test"} for number in range(4)]
    return prepared(folder, rows)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    whisper = write_whisper(folder / "whisper", WHISPER)
    return GenerationJudge(whisper=str(whisper), text_lm=str(write_text_lm(folder / "lm")), prompt_s=0.5)


@pytest.fixture(scope="module")
def system():
    return drawn_unit_speech_lm(decoding=UnitDecoding(max_new=8, min_new=2), prompt_s=0.5)


@dataclasses.dataclass
class Mumbler(Listener):
    """Says the opening backwards, nothing, or no number, in turn; notes the rows of keys."""

    writes: frozenset = frozenset({"speech"})

    def respond(self, conversations, decoding, key):
        self.heard += jax.random.key_data(key).tolist()
        clips = [one[0].speech[0].samples[::-1] for one in conversations]
        clips = [clip * (1, np.nan, 0)[place % 3] for place, clip in enumerate(clips)]
        kept = [clip if place % 3 < 2 else clip[:0] for place, clip in enumerate(clips)]
        return [Reply((Message("assistant", (Speech(clip, RATE_HZ),)),), {}) for clip in kept]


@pytest.mark.slow(seconds=20)
def test_a_system_of_units_is_read_beside_the_recorded_and_the_shuffled(judge, system, speech):
    section = judge.judge(system, speech, SETTINGS)
    figures = section.figures["generation"]
    assert list(figures) == GROUPS
    assert [row["texts"] for row in figures.values()] == [COUNT, 2 * COUNT, COUNT, COUNT, COUNT]
    assert figures["recorded"]["gen_ppl"] > 1 and figures["recorded"]["missing"] == 0
    assert figures["recorded"]["auto_bleu"] is not None and figures["continuations"]["vert"] is not None
    assert section.tables[0].header[1:3] == ["GenPPL ↓", "PPX ↓"]
    assert len(section.tables[1].rows) == COUNT and section.sounds[0].rate_hz == RATE_HZ

    path = speech.run.path / "generation.jsonl"
    kept, said = read_transcripts(path)
    assert kept["judge"]["samples"] == 2 and kept["decoding"]["max_new"] == 8
    assert [one.seconds for one in said if one.group == "recorded"] == pytest.approx([1.1] * COUNT)
    assert all(0 < one.seconds <= 1.1 for one in said)
    assert {one.id for one in said} == {"1", "2", "3"}  # the first has no rest to speak of
    again = score_transcripts(said, load_text_scorer(judge.text_lm, judge.start), judge.language)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(figures))
    words = {one.group: one.text for one in said if one.id == "1" and one.text}
    assert sorted(words["shuffled words"].split()) == sorted(words["recorded"].split())


def test_what_is_not_heard_is_missing(judge, speech):
    system = Mumbler(("",) * 8, rate_hz=RATE_HZ)
    figures = judge.replace(samples=1, name="mumbled").judge(system, speech, SETTINGS).figures["mumbled"]
    assert list(figures) == ["recorded", "continuations", "shuffled words"]
    assert (figures["continuations"]["texts"], figures["continuations"]["missing"]) == (3, 2)
    said = read_transcripts(speech.run.path / "mumbled.jsonl")[1]
    assert [one.text is None for one in said if one.group == "continuations"] == [False, True, True]


def test_draws_have_keys_of_their_own(judge, speech):
    system = Mumbler(("",) * 8, rate_hz=RATE_HZ)
    judge.continued(system, [noise(0.5)] * 3)
    assert len({tuple(key) for key in system.heard}) == 6


def test_what_is_lacking(judge, speech, system, tmp_path):
    with pytest.raises(Lacking, match=r"the model of 'whisper' cannot be read: .*no such folder"):
        judge.replace(whisper=str(tmp_path / "none")).judge(system, speech, SETTINGS)
    with pytest.raises(Lacking, match=r"the model of 'text_lm' cannot be read: .*language model is needed"):
        judge.replace(text_lm=judge.whisper).judge(system, speech, SETTINGS)
    with pytest.raises(Lacking, match="writes no speech"):
        judge.judge(Listener(("",)), speech, SETTINGS)
    with pytest.raises(Lacking, match="longer than 3 s"):
        judge.replace(prompt_s=2.0).judge(system, speech, SETTINGS)
