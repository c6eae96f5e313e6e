"""The speech-aware system: replies in any batch, log-probabilities, beams, clips of any rate, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.audio.mel import whisper_log_mel
from slm_jax.core.contracts import Scores, System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.serving.speech_aware import ROWS, AnswerDecoding, SpeechAwareSystem
from tests.assemblies.small_speech_aware import CONFIG, RATE_HZ, asked, drawn, drawn_speech_aware, layout_of, voice

SYSTEM = drawn_speech_aware()
GREEDY = AnswerDecoding(max_new=12, min_new=4, repetition_penalty=1.5)
KEY = jax.random.key(0)


def conversations(count):
    """No clip, one and two, of different lengths, in turn."""
    kinds = (
        lambda i: asked(voice(0.3 + 0.05 * i, i), "What is said?"),
        lambda i: asked(f"Number {i}."),
        lambda i: asked("First", voice(0.2, i), "or", voice(0.25 + 0.02 * i, i + 50), "?"),
    )
    return [kinds[i % 3](i) for i in range(count)]


def ids(replies):
    return [reply.trace["ids"].tolist() for reply in replies]


def test_it_keeps_the_contract_and_says_text():
    assert isinstance(SYSTEM, System) and isinstance(SYSTEM, Scores)
    (reply,) = SYSTEM.respond(conversations(1), GREEDY, KEY)
    (message,) = reply.messages
    assert message.role == "assistant" and message.kinds == {"text"}
    assert len(reply.trace["ids"]) == len(reply.trace["log_probs"]) <= 12
    assert SYSTEM.respond([], None, KEY) == []


def test_it_tells_how_many_vectors_are_read_of_the_clips():
    many = [asked("Nothing."), asked(voice(0.5), "and", voice(0.31)), *conversations(9)]
    found = SYSTEM.speech_vectors(many)
    assert found[0] == 0 and found[1] == sum(CONFIG.frames_out(round(s * RATE_HZ)) for s in (0.5, 0.31))
    assert found[1:2] == SYSTEM.speech_vectors(many[1:2]) and len(found) == len(many)


def test_a_reply_is_the_same_in_any_batch():
    """1, 4 and 32 conversations with no clip, one and two: the loudest complaint of users of such systems."""
    everyone = conversations(32)
    keys = jax.random.split(KEY, 32)
    how = GREEDY.replace(temperature=1.0, top_k=30, repetition_penalty=1.0)
    together = SYSTEM.respond(everyone, how, keys)
    assert len({tuple(one) for one in ids(together)}) > 24
    for rows in (slice(0, 4), slice(2, 3), slice(31, 32)):
        alone = SYSTEM.respond(everyone[rows], how, keys[rows])
        assert ids(alone) == ids(together[rows])
        for one, other in zip(alone, together[rows], strict=True):
            np.testing.assert_allclose(one.trace["log_probs"], other.trace["log_probs"], atol=1e-4)
    assert ROWS < 32, "or one batch held all of them"


def test_what_is_heard_has_an_effect():
    first, second = SYSTEM.respond([asked(voice(0.5, seed), "What?") for seed in (1, 2)], GREEDY, KEY)
    assert not np.allclose(first.trace["log_probs"], second.trace["log_probs"], atol=1e-3)


@partial(jax.jit, static_argnums=0)
def forced(model, variables, batch):
    args = (batch[name] for name in ("samples", "sample_mask", "ids", "speech_at", "mask"))
    return jax.nn.log_softmax(model.apply(variables, *args), axis=-1)


def test_log_prob_is_that_of_teacher_forcing_and_of_decoding():
    said = [
        (*one, Message("assistant", (Text(text),)))
        for one, text in zip(conversations(3), ("a", "", "some"), strict=True)
    ]
    found = SYSTEM.log_prob(said)
    assert [len(one) for one in found] == [2, 1, 5], "every byte and the end"
    for one, row in zip(said, found, strict=True):
        batch = SYSTEM._batch([one], 0, answered=True)
        log_probs, places = (
            np.asarray(forced(SYSTEM.model, SYSTEM.variables, batch))[0],
            np.flatnonzero(batch["target_weight"][0]),
        )
        np.testing.assert_allclose(row, log_probs[places - 1, batch["ids"][0, places]], atol=1e-4)
    (reply,) = SYSTEM.respond(conversations(1), GREEDY.replace(min_new=0, repetition_penalty=1.0), KEY)
    text = reply.messages[0].text
    if SYSTEM.layout.tokens.encode(text) == reply.trace["ids"][:-1].tolist():
        again = SYSTEM.log_prob([(*conversations(1)[0], Message("assistant", (Text(text),)))])
        np.testing.assert_allclose(again[0], reply.trace["log_probs"], atol=1e-4)


def test_log_prob_counts_the_answer_whatever_was_learnt():
    every = SpeechAwareSystem(SYSTEM.model, SYSTEM.variables, layout_of(targets="all"))
    said = [asked(voice(0.3), "What?", answer="yes")]
    np.testing.assert_allclose(every.log_prob(said)[0], SYSTEM.log_prob(said)[0], atol=1e-5)


def test_beams_give_the_best_replies_with_their_scores():
    how = AnswerDecoding(max_new=3, beams=4)
    (reply,) = SYSTEM.respond(conversations(1), how, KEY)
    n_best, scores = reply.trace["n_best"], reply.trace["scores"]
    assert len(n_best) == len(scores) == 4 and np.all(np.diff(scores) <= 0)
    assert reply.messages[0].text == n_best[0]
    assert (
        scores[0] >= sum(SYSTEM.respond(conversations(1), how.replace(beams=1), KEY)[0].trace["log_probs"]) / 3 - 1e-4
    )
    together = SYSTEM.respond(conversations(5), how, KEY)
    assert ids(together[:1]) == ids([reply])
    with pytest.raises(UserError, match=r"repetition_penalty is 2\.0: not with beams"):
        SYSTEM.respond(conversations(1), how.replace(repetition_penalty=2.0), KEY)


def test_lora_may_count_less():
    scored = {}
    for lora in (0.0, 0.5, 1.0):
        (reply,) = SYSTEM.respond(conversations(1), GREEDY.replace(lora=lora), KEY)
        scored[lora] = reply.trace["log_probs"][0]
    plain = SpeechAwareSystem(SYSTEM.model.model, {"params": SYSTEM.variables["params"]}, SYSTEM.layout)
    (without,) = plain.respond(conversations(1), GREEDY, KEY)
    assert scored[0.0] == pytest.approx(without.trace["log_probs"][0], abs=1e-5)
    assert len({round(float(value), 4) for value in scored.values()}) == 3


def test_clips_of_another_rate_are_resampled():
    high = voice(0.5, rate_hz=48_000)
    found, wanted = SYSTEM.log_prob([asked(clip, "What?", answer="yes") for clip in (high, voice(0.5))])
    np.testing.assert_allclose(found, wanted, atol=0.05)
    wrong = Speech(high.samples[:8_000], RATE_HZ)
    assert np.abs(SYSTEM.log_prob([asked(wrong, "What?", answer="yes")])[0] - wanted).max() > 0.1


WHISPER = CONFIG.replace(
    encoders=(
        WhisperEncoderConfig(mel=whisper_log_mel(), layers=1, width=16, heads=2, hidden=16, max_frames=20, trim=True),
    )
)


def test_a_window_is_no_multiple_of_a_second():
    system = SpeechAwareSystem(WHISPER.make(), drawn(WHISPER), layout_of(WHISPER))
    replies = system.respond([asked(voice(seconds), "What?") for seconds in (0.4, 0.1)], GREEDY, KEY)
    assert all(np.isfinite(reply.trace["log_probs"]).all() for reply in replies)
    with pytest.raises(
        UserError, match=r"clip 1 of 0.45 s: a clip is longer than what is heard at once; at most 0.4 s"
    ):
        system.respond([asked(voice(0.45), "What?")], GREEDY, KEY)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.zeros(0, np.float32), "conversation 1: samples is 'empty'"),
        (np.full(16_000, np.nan, np.float32), "conversation 1: samples is 'not finite'"),
        (np.zeros(100, np.float32), "clip 1 of 0.00625 s: a clip is so short that no frame comes of it"),
    ],
)
def test_bad_input_is_one_clear_error(samples, told):
    with pytest.raises(UserError, match=told):
        SYSTEM.respond([asked("a"), asked(Speech(samples, RATE_HZ), "What?")], GREEDY, KEY)


def test_silence_is_heard_and_other_bad_input_is_refused():
    (reply,) = SYSTEM.respond([asked(Speech(np.zeros(8_000, np.float32), RATE_HZ), "What?")], GREEDY, KEY)
    assert np.isfinite(reply.trace["log_probs"]).all()
    with pytest.raises(UserError, match="an answer is words of the assistant"):
        SYSTEM.log_prob([asked("a")])
    with pytest.raises(UserError, match="a conversation is a tuple of messages"):
        SYSTEM.respond([()], GREEDY, KEY)
    assert jnp.isfinite(SYSTEM.log_prob([asked("a", answer="b")])[0]).all()
