"""Text and units in one stream as a system: forms, legal ids, replies taken apart, a row alone as in a batch."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Message, Speech, Text, spoken, written
from slm_jax.data.examples.one_stream import rendered
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.serving.one_stream_speech_lm import Form, Written
from slm_jax.systems.speech_text import speechgpt
from tests.serving.drawn import noise
from tests.serving.drawn_one_stream import drawn_speechgpt, drawn_spirit_lm, random_units

RATE = 16_000


@pytest.fixture(scope="module")
def chain():
    return drawn_speechgpt()


@pytest.fixture(scope="module")
def turns():
    return drawn_spirit_lm()


def clip(seconds=0.5, seed=0):
    return Speech(noise(seconds, seed), RATE)


def said(system, conversations, form=None, seed=0):
    keys = jax.random.split(jax.random.key(seed), 8)[: len(conversations)]
    return system.respond(conversations, system.decoding.replace(form=form), keys)


def test_a_row_alone_is_what_it_is_in_a_batch_of_other_forms(chain):
    asked = [spoken(noise(0.5, 1), RATE), written("What is it?"), spoken(noise(0.3, 2), RATE)]
    together = said(chain, asked)
    assert [one.trace["form"] for one in together] == ["answer", "written", "answer"]
    for place in (0, 2):
        keys = jax.random.split(jax.random.key(0), 8)[place : place + 1]
        (alone,) = chain.respond([asked[place]], None, keys)
        np.testing.assert_array_equal(alone.trace["ids"], together[place].trace["ids"])
        for mine, theirs in zip(alone.messages[0].speech, together[place].messages[0].speech, strict=True):
            np.testing.assert_allclose(mine.samples, theirs.samples, atol=1e-5)


def test_prompts_are_those_of_training(chain):
    message = Message("user", (clip(), Text("Notes: it rains.")))
    form = chain.form(message, None)
    assert form.name == "notes"
    tokens, units = chain.stream.tokens, chain.heard(message.speech[0])
    before, after = tokens.encode_marked("[Human]: <sosp>"), tokens.encode_marked("<eosp>")
    rest = tokens.encode(" Notes: it rains.") + tokens.encode_marked(" <eoh>. [SpeechGPT]: ")
    assert chain.prompt(message, form).tolist() == [tokens.special("<s>"), *before, *units, *after, *rest]
    first, end = tokens.vocabulary.bounds("units")
    assert ((units >= first) & (units < end)).all() and (units[1:] != units[:-1]).all()
    assert tokens.special("[Human]") not in tokens.encode("[Human]")  # nobody slips one in


def test_a_chain_is_taken_apart_and_the_question_stays_in_the_trace(chain):
    form, tokens = chain.forms[0], chain.stream.tokens
    units = random_units(9)
    speech = tokens.vocabulary.encode_range("units", units)
    fields = {"asked": "Who is it?", "answered": "It is Tom.", "answered_speech": np.asarray(speech)}
    ids = rendered(tokens, form.answer, fields)
    made = Written(np.append(ids, tokens.special("</s>")), np.zeros(len(ids) + 1, np.float32))
    found = chain._fields(made, form)
    np.testing.assert_array_equal(chain.stream.units(found["answered_speech"]), units)
    reply = chain._reply(form, made, found, units, np.zeros(10, np.float32))
    assert reply.messages[0].text == "It is Tom." and len(reply.messages[0].speech) == 1
    assert reply.trace["asked"] == "Who is it?"


def test_only_kinds_that_a_form_writes_are_drawn(chain, turns):
    for system, name, kinds in (
        (chain, "transcribe", {"text"}), (chain, "speak", {"speech"}), (turns, "text", {"text"}),
        (turns, "speech", {"speech"}), (turns, "go_on", {"text", "speech"}), (chain, "answer", {"text", "speech"}),
    ):  # fmt: skip
        asked = written("say this") if name == "speak" else spoken(noise(0.4, 3), RATE)
        (reply,) = said(system, [asked], name)
        assert reply.messages[0].kinds == kinds
        legal = np.delete(np.arange(system.lm.config.vocabulary), system.never(system.form(asked[0], name)))
        assert np.isin(reply.trace["ids"], legal).all() and legal.max() < system.stream.tokens.size
        heard = system.stream.tokens.is_speech(legal)
        assert heard.any() == ("speech" in kinds) and (~heard).sum() == {
            "transcribe": 259, "speak": 8, "text": 259, "speech": 1, "go_on": 261, "answer": 265
        }[name]  # fmt: skip


def test_parts_in_turns_stand_behind_their_marks_and_the_last_asks_for_a_kind(turns):
    tokens, one = turns.stream.tokens, clip(0.4, 4)
    text, speech = tokens.special("[Text]"), tokens.special("[Speech]")
    message = Message("user", (Text("so"), one, Text(" it is")))
    forms = {form.name: form for form in turns.forms}
    start = [1, text, *tokens.encode("so"), speech, *turns.heard(one), text, *tokens.encode(" it is")]
    assert turns.prompt(message, forms["go_on"]).tolist() == start
    assert turns.prompt(message, forms["speech"]).tolist() == [*start, speech]
    assert turns.prompt(message, forms["text"]).tolist() == start


def test_log_probs_are_of_the_documents_it_was_trained_on(turns):
    found = turns.log_prob([spoken(noise(0.4, 5), RATE), written("so it is")])
    tokens = turns.stream.tokens
    ids = np.array([1, tokens.special("[Text]"), *tokens.encode("so it is"), 2], np.int32)
    (wanted,) = sequence_log_probs(turns.lm, turns.lm_params, [ids])
    np.testing.assert_allclose(found[1], wanted, atol=1e-5)
    assert len(found[0]) == len(turns.heard(clip(0.4, 5))) + 2 and (found[0] < 0).all()
    with pytest.raises(UserError, match="conversation 0 is 2: one clip or one text"):
        turns.log_prob([(Message("user", (Text("a"), Text("b"))),)])


def test_what_cannot_be_put_is_refused(chain, turns):
    with pytest.raises(UserError, match=r"form is 'speek': one of .*did you mean 'speak'"):
        said(chain, [written("a")], "speek")
    with pytest.raises(UserError, match="clip is '100 samples': shorter than one frame"):
        said(turns, [spoken(noise(0.1)[:100], RATE)])
    with pytest.raises(UserError, match=r"field of .* is 'speech'"):
        said(chain, [written("a")], "transcribe")
    with pytest.raises(UserError, match="marks of form 'x' is None"):
        Form(name="x", answer="{text}")
    only = [form for form in chain.forms if form.name == "speak"]
    assert only[0].takes(frozenset({"text"})) and not only[0].takes(frozenset({"speech"}))
    assert chain.forms == speechgpt.FORMS
