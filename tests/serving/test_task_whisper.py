"""Whisper with tasks on drawn weights: what is asked decides the prefix, and nothing else that is read does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import Scores, System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, spoken
from slm_jax.serving.task_whisper import TaskDecoding
from tests.serving.drawn import noise
from tests.serving.drawn_whisper import ENCODER, PROMPTS, drawn_task_whisper

KEY = jax.random.key(0)
CLIPS = [noise(0.04 + 0.03 * place, place) for place in range(9)]
ASKS = (
    "<|rate|> <|world|>",
    "is it slow.",
    "",
    "<|mood|>",
    "slow or fast.",
    "<|transcribe|> <|world|>",
)


def asked(clip, words, answer=None):
    said = (Message("user", (Speech(clip, 16_000), *((Text(words),) if words else ()))),)
    return said if answer is None else (*said, Message("assistant", (Text(answer),)))


CONVERSATIONS = [asked(clip, ASKS[place % len(ASKS)]) for place, clip in enumerate(CLIPS)]


def texts(replies):
    return [(reply.messages[0].text, reply.trace["n_best"]) for reply in replies]


@pytest.fixture(scope="module")
def system():
    return drawn_task_whisper()


@pytest.fixture(scope="module")
def nine(system):
    return system.respond(CONVERSATIONS, None, KEY)


def test_a_conversation_gets_what_it_gets_alone(system, nine):
    assert isinstance(system, System) and isinstance(system, Scores)
    assert len({text for text, _ in texts(nine)}) >= 6, "what says the same of everything would pass as well"
    assert len({len(PROMPTS.prefix(words)) for words in ASKS}) >= 4
    for place in (1, 4):
        assert texts(system.respond(CONVERSATIONS[place : place + 1], None, KEY)) == texts(nine[place : place + 1])
    assert texts(system.respond(CONVERSATIONS[3:6], None, KEY)) == texts(nine[3:6])
    assert system.respond([], None, KEY) == []


def test_trimmed_clips_are_read_together_too():
    trimmed = drawn_task_whisper(trim=True)
    together = trimmed.respond(CONVERSATIONS[:3], None, KEY)
    assert texts(trimmed.respond(CONVERSATIONS[1:2], None, KEY)) == texts(together[1:2])


def test_what_is_asked_and_what_is_heard_both_matter(system, nine):
    same_words = system.respond([asked(clip, ASKS[0]) for clip in CLIPS[:8]], None, KEY)
    assert len({text for text, _ in texts(same_words)}) >= 4
    same_clip = system.respond([asked(CLIPS[7], words) for words in ASKS], None, KEY)
    assert len({text for text, _ in texts(same_clip)}) >= 3


def test_the_best_of_several_answers_come_with_their_scores(system, nine):
    for reply in nine:
        n_best, scores = reply.trace["n_best"], reply.trace["scores"]
        assert len(n_best) == len(scores) == 3 and (np.diff(scores) <= 0).all()
        assert reply.messages == (Message("assistant", (Text(n_best[0]),)),)
        assert PROMPTS.decode(reply.trace["ids"].tolist()) == n_best[0]


def test_no_answer_begins_with_its_end_and_none_holds_a_mark(system, nine):
    """Behind prefixes of all lengths; the drawn model would end at once where nothing kept it from that."""
    params = jax.tree.map(jnp.asarray, system.params)
    table = params["decoder"]["tokens"]["embedding"]
    eager = drawn_task_whisper()
    bias = jnp.zeros_like(params["decoder"]["final_norm"]["bias"]).at[0].set(30.0)
    marked = [PROMPTS.tokens.end, *PROMPTS.never]
    table = table.at[:, 0].set(-1.0).at[jnp.array(marked), 0].set(1.0)
    norm = {**params["decoder"]["final_norm"], "bias": bias}
    eager.params = {**params, "decoder": {**params["decoder"], "tokens": {"embedding": table}, "final_norm": norm}}
    found = eager.respond(CONVERSATIONS, TaskDecoding(max_new=8, beams=1), KEY)
    for reply in found:
        ids = reply.trace["ids"].tolist()
        assert len(ids) == 2 and ids[1] == PROMPTS.tokens.end and ids[0] not in marked


def test_ln_p_is_that_of_the_answers_found(system, nine):
    answered = [
        (*one, Message("assistant", (Text(reply.trace["n_best"][0]),)))
        for one, reply in zip(CONVERSATIONS, nine, strict=True)
    ]
    found = system.log_prob(answered)
    compared = 0
    for own, reply in zip(found, nine, strict=True):
        ids, spelt = reply.trace["ids"].tolist(), PROMPTS.answer(reply.trace["n_best"][0])
        assert len(own) == len(spelt) and (own < 0).all()
        if spelt[: len(ids)] == ids:  # words are stripped of blanks at their ends
            np.testing.assert_allclose(own[: len(ids)].mean(), reply.trace["scores"][0], atol=1e-4)
            compared += 1
    assert compared >= 6
    alone = system.log_prob(answered[4:5])
    np.testing.assert_allclose(alone[0], found[4], atol=1e-5)


LONG = np.zeros(ENCODER.window + 1, np.float32)
REFUSED = {
    "no clip": (
        (Message("user", (Text("slow."),)),),
        "conversation 1: the conversation has 0 clips: Whisper hears one",
    ),
    "two clips": ((*spoken(CLIPS[0], 16_000), *spoken(CLIPS[1], 16_000)), "has 2 clips"),
    "too long": (asked(LONG, ""), r"clip is '1.0 s': at most 1 s are heard at once; cut it"),
    "empty": (asked(LONG[:0], ""), "there must be something to hear"),
    "unknown": (asked(CLIPS[0], "<|rat|>"), r"conversation 1: asked is '<\|rat\|>': .*did you mean '<\|rate\|>'"),
    "no room": (asked(CLIPS[0], "slow or fast or neither."), "max_new is 7: the decoder has room for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_before_anything_is_read(system, name, monkeypatch):
    monkeypatch.setattr(system, "heard", None)
    one, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        system.respond([CONVERSATIONS[0], one], None, KEY)


def test_ln_p_needs_an_answer(system):
    with pytest.raises(UserError, match="its last message is the assistant's words"):
        system.log_prob(CONVERSATIONS[:1])
    with pytest.raises(UserError, match="prefix and answer is 29: the decoder has 24 positions"):
        system.log_prob([asked(CLIPS[0], "", "a" * 24)])
    with pytest.raises(UserError, match="beams is 0"):
        TaskDecoding(beams=0)
