"""Speech-aware LMs whose language model is an encoder-decoder: the answer is a row of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Text
from slm_jax.data.examples.speech_prompts import SpeechPromptExample, stacked
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.objectives.answers import Answers
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from tests.serving.drawn_slm import TOKENS, asked, drawn_slm, voice

ASKED = [asked(voice(0.4 + 0.06 * i, seed=i), f"What is said{'?' * i}") for i in range(9)]
KEY = jax.random.key(0)
TOLERANCE = 1e-4
NAMES = ("samples", "sample_mask", "ids", "speech_at", "mask", "answer_ids")
ENCODE = TOKENS.make().encode_marked


@pytest.fixture(scope="module")
def system():
    return drawn_slm()


@pytest.fixture(scope="module")
def alone(system):
    """The first and the last conversation, each asked for itself."""
    keys = jax.random.split(KEY, len(ASKED))
    return {i: system.respond([ASKED[i]], None, keys[i : i + 1])[0] for i in (0, 8)}


def test_a_reply_does_not_depend_on_who_is_asked_beside(system, alone):
    assert alone[0].trace["ids"].tolist() != alone[8].trace["ids"].tolist()
    keys = jax.random.split(KEY, len(ASKED))
    for places in ([0, 4, 8], list(range(9))):
        replies = system.respond([ASKED[i] for i in places], None, keys[np.array(places)])
        for i in alone:
            reply = replies[places.index(i)]
            np.testing.assert_array_equal(reply.trace["ids"], alone[i].trace["ids"])
            np.testing.assert_allclose(reply.trace["log_probs"], alone[i].trace["log_probs"], atol=TOLERANCE)


def test_what_it_says_of_an_answer_does_not_depend_on_the_answers_beside(system):
    said = [(*one, Message("assistant", (Text("abc" * (1 + i)),))) for i, one in enumerate(ASKED[:3])]
    together = system.log_prob(said)
    assert [len(row) for row in together] == [4, 7, 10]
    np.testing.assert_allclose(system.log_prob(said[:1])[0], together[0], atol=TOLERANCE)
    other = system.log_prob([(*ASKED[1], said[0][-1])])[0]
    assert np.abs(other - together[0]).max() > 100 * TOLERANCE  # what is heard counts


def test_what_is_written_step_by_step_has_the_probability_of_the_whole_row(system, alone):
    row = example(system, length=96, written=12)(ITEM, np.random.default_rng(0))
    said = asked(voice(0.6), "Write down what is said.")
    trace = system.respond([said], None, KEY)[0].trace
    ids = np.pad(trace["ids"], (0, 12 - len(trace["ids"])))
    batch = stacked([{**row, "answer_ids": ids.astype(np.int32)}])
    logits = jax.jit(system.model.apply)(system.variables, *(jnp.asarray(batch[name]) for name in NAMES))[0]
    wanted = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), ids[:, None], 1)[:, 0]
    np.testing.assert_allclose(trace["log_probs"], wanted[: len(trace["ids"])], atol=TOLERANCE)


def test_beams_follow_what_is_heard(system, alone):
    one, *_ = system.respond(ASKED[:3], AnswerDecoding(max_new=12, beams=3), KEY)
    assert 1 <= len(one.trace["n_best"]) <= 3
    greedy = alone[0].trace["log_probs"]
    assert one.trace["scores"][0] >= greedy.sum() / len(greedy) - TOLERANCE
    (single,) = system.respond(ASKED[:1], AnswerDecoding(max_new=12, beams=3), KEY)
    np.testing.assert_array_equal(single.trace["ids"], one.trace["ids"])


def test_words_alone_are_read_too(system):
    (reply,) = system.respond([asked("Hello.")], None, KEY)
    assert len(reply.trace["ids"]) >= 1 and np.isfinite(reply.trace["log_probs"]).all()


def example(system, length=96, written=16):
    return SpeechPromptExample(
        system.layout, AskedTaskConfig(), 16_000, clip=16_000, length=length, clips=1, written=written
    )


ITEM = {"id": "a", "samples": voice(0.6).samples, "text": "abc", "messages": ()}


def test_the_rows_of_an_example_are_what_is_read_and_what_is_written(system):
    row = example(system)(ITEM, np.random.default_rng(0))
    frames = system.layout.frames_out(len(ITEM["samples"]))
    read = ENCODE(" Write down what is said.</s>")
    np.testing.assert_array_equal(row["ids"][frames : frames + len(read)], read)
    np.testing.assert_array_equal(row["speech_at"][:frames], np.arange(frames))
    assert row["mask"].sum() == frames + len(read)
    np.testing.assert_array_equal(row["answer_ids"][:4], ENCODE("abc</s>"))
    assert row["target_weight"].sum() == 4
    assert row["target_weight"].shape == row["answer_ids"].shape == (16,)


def test_answers_and_rows_that_do_not_fit_are_named(system):
    assert "answer is longer than 3 ids" in example(system, written=3).problem(ITEM)
    assert "row is longer than 20 entries" in example(system, length=20).problem(ITEM)
    assert example(system, written=4).problem(ITEM) is None
    with pytest.raises(UserError, match="answer"):
        example(system, written=3)(ITEM, np.random.default_rng(0))


@pytest.fixture(scope="module")
def term(system):
    """The loss of a batch as a jitted function."""
    objective = Answers(system.model, NextTokenConfig())
    return jax.jit(lambda batch: objective(system.variables, batch, None).terms["answer"])


def test_the_objective_is_the_mean_of_what_scoring_says(system, term):
    rows = [example(system)({**ITEM, "text": text}, np.random.default_rng(0)) for text in ("abc", "a longer one")]
    loss = term(stacked(rows))
    said = [asked(voice(0.6), "Write down what is said.", answer=text) for text in ("abc", "a longer one")]
    scored = np.concatenate(system.log_prob(said))
    assert float(loss.count) == len(scored) == 17
    np.testing.assert_allclose(float(loss.total), -scored.sum(), rtol=1e-5)


def test_padding_behind_an_answer_has_no_effect(system, term):
    row = example(system)(ITEM, np.random.default_rng(0))
    other = {**row, "answer_ids": np.where(row["target_weight"] > 0, row["answer_ids"], 7).astype(np.int32)}
    one, two = (float(term(stacked([each] * 2)).total) for each in (row, other))
    assert one == two


def test_an_answer_apart_is_refused_by_models_that_read_it_in_their_row(system):
    config = system.model.config
    plain = config.replace(lm=config.lm.decoder.replace(context_width=None)).make()
    batch = stacked([example(system)(ITEM, np.random.default_rng(0))])
    params = {"params": {**system.variables["params"], "lm": system.variables["params"]["lm"]["decoder"]}}
    with pytest.raises(UserError, match="answer"):
        jax.eval_shape(plain.apply, params, *(batch[name] for name in NAMES))
