"""The judge of text and units: who writes nothing sensible has all words wrong, and every clip is there to be heard."""

import dataclasses

import numpy as np
import pytest

from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.data.corpus import WorldConfig, prepare_corpus
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig
from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.listening import understood
from slm_jax.judges.one_stream import OneStreamJudge, speech_of
from slm_jax.serving.one_stream_speech_lm import OneStreamSpeechLM
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import StageContext
from tests.serving.drawn_one_stream import drawn_spirit_lm

CORPUS = WorldConfig(hours=0.015, question_hours=0.015, speakers=2, dev_share=0.1, test_share=0.5)
TWO = JudgeSettings(utterances=2)
QUESTIONS = AnsweredTaskConfig(kinds=("question_answer",))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world")
    prepare_corpus(CORPUS, path / "data", progress=False)
    return StageContext(RunFolder(path / "run"), CORPUS, path / "data", progress=False, say=lambda line: None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knows(OneStreamSpeechLM):
    """Says what it knows of a clip by its length."""

    answers: dict = dataclasses.field(default_factory=dict)

    def respond(self, conversations, decoding, key):
        texts = [self.answers.get(self._key(one), "") for one in conversations]
        return [Reply((Message("assistant", (Text(text),)),), {}) for text in texts]

    def _key(self, one):
        message = one[-1]
        return len(message.speech[0].samples) if message.speech else message.text


def knows(answers):
    """A drawn system that knows these."""
    drawn = drawn_spirit_lm()
    return Knows(**{one.name: getattr(drawn, one.name) for one in dataclasses.fields(drawn)}, answers=answers)


def test_what_is_written_is_counted_and_what_is_spoken_kept(world, tmp_path):
    system = drawn_spirit_lm()
    section = OneStreamJudge(whisper=str(tmp_path / "none"), answers=QUESTIONS).judge(system, world, TWO)
    found = section.figures["one_stream"]
    assert list(found) == ["heard", "answers"]  # nobody listens
    assert found["heard"]["wer"] > 0.5 and found["heard"]["utterances"] == 2
    assert found["answers"] == {"questions": 2, "written": 0.0, "written_other_speech": 0.0}
    assert {sound.name for sound in section.sounds} >= {"one_stream_units_0", "one_stream_units_1"}


def test_who_knows_has_no_errors(world, tmp_path):
    items = [world.source("test")[i] for i in range(2)]
    questions = world.source("test", ("question_answer",))
    known = {len(item["samples"]): item["text"] for item in items}
    for item in map(questions.__getitem__, range(len(questions))):
        turn = item["messages"][0]
        known[len(item["samples"][: round(turn.end_s * 16_000)])] = f"It is {item['messages'][1].answer}."
    judge = OneStreamJudge(whisper=str(tmp_path / "none"), answers=QUESTIONS, longest_s=20.0)
    found = judge.judge(knows(known), world, TWO).figures["one_stream"]
    assert found["heard"]["wer"] == 0.0 < found["heard"]["shuffled_wer"]
    assert found["answers"]["written"] == 1.0 > found["answers"]["written_other_speech"]


def test_it_says_what_it_lacks(world):
    with pytest.raises(Lacking, match="no held-out utterance has a text"):
        OneStreamJudge(longest_s=0.01).judge(drawn_spirit_lm(), world, TWO)
    with pytest.raises(Lacking, match="items of kind dialogue are not there"):
        OneStreamJudge().asked(drawn_spirit_lm(), QUESTIONS.replace(kinds=("dialogue",)), world, 2)


def test_empty_clips_say_nothing():
    class Echo:
        def transcribe(self, clips):
            return [type("Found", (), {"text": str(len(clip))}) for clip in clips]

    nothing, three = np.zeros(0, np.float32), np.zeros(3, np.float32)
    assert understood(Echo(), [nothing, three, nothing]) == ["", "3", ""]
    assert understood(Echo(), [nothing]) == [""]
    reply = Reply((Message("assistant", (Text("a"), Speech(three, 8_000), Speech(three, 8_000))),), {})
    assert [len(one) for one in speech_of([reply, Reply((Message("assistant", (Text("a"),)),), {})])] == [6, 0]
