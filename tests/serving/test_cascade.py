"""A cascade: the transcriber's words stand where clips were, and the reader answers to them as to any others."""

import jax
import numpy as np
import pytest

from slm_jax.core.contracts import System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.serving.cascade import Cascade
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.serving.transcriber import Transcription, load_transcriber
from tests.assemblies.small_speech_aware import asked, drawn_speech_aware
from tests.serving.drawn import noise
from tests.whisper_folder import write_whisper

KEY = jax.random.key(0)
READER = drawn_speech_aware()
GREEDY = AnswerDecoding(max_new=6, min_new=3)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    transcriber = load_transcriber(write_whisper(tmp_path_factory.mktemp("hub") / "whisper"))
    return Cascade(transcriber, READER, Transcription(max_new=5))


def clip(place, rate_hz=16_000):
    return Speech(noise(0.1 + 0.05 * place, place), rate_hz)


CONVERSATIONS = [
    (Message("user", (clip(0), Text("What is said?"))),),
    asked("Nothing is heard."),
    (Message("user", (Text("First"), clip(1), Text("then"), clip(2))),),
]


def test_the_reader_answers_to_what_was_written_down(cascade):
    assert isinstance(cascade, System)
    replies = cascade.respond(CONVERSATIONS, GREEDY, KEY)
    words = [
        one.text
        for one in cascade.transcriber.transcribe([clip(i).samples for i in range(3)], Transcription(max_new=5))
    ]
    assert all(words) and len(set(words)) == 3
    by_hand = [
        (Message("user", (Text(words[0]), Text("What is said?"))),),
        CONVERSATIONS[1],
        (Message("user", (Text("First"), Text(words[1]), Text("then"), Text(words[2]))),),
    ]
    read = READER.respond(by_hand, GREEDY, KEY)
    assert [reply.messages for reply in replies] == [reply.messages for reply in read]
    assert [reply.trace["heard"] for reply in replies] == [words[:1], [], words[1:]]


def test_a_reply_is_the_same_alone(cascade):
    together = cascade.respond(CONVERSATIONS, GREEDY, KEY)
    for place, one in enumerate(CONVERSATIONS):
        (alone,) = cascade.respond([one], GREEDY, KEY)
        assert alone.messages == together[place].messages


def test_clips_of_another_rate_are_resampled(cascade):
    high = Speech(np.repeat(clip(3).samples, 2), 32_000)
    (written,) = cascade.written([(Message("user", (high,)),)])
    assert written[0].text


def test_broken_clips_are_named(cascade):
    broken = clip(0).samples.copy()
    broken[5] = np.nan
    with pytest.raises(UserError, match=r"conversation 1: samples.*NaN"):
        cascade.respond([CONVERSATIONS[1], (Message("user", (Speech(broken, 16_000),)),)], GREEDY, KEY)
