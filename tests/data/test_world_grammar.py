"""The world's words: consistent, checkable, and read by the voice as they are written."""

import numpy as np
import pytest

from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import QUESTIONS, answer, compose, is_correct, plural, spoken_words


def utterances(kind, count, seed=0):
    world, rng = make_world(seed), np.random.default_rng(seed)
    return world, [compose(kind, world, rng) for _ in range(count)]


def test_same_seed_same_world():
    assert make_world(3) == make_world(3)
    assert make_world(3) != make_world(4)


def test_a_few_hundred_word_types_and_many_sentences():
    _, said = utterances("sentence", 4000)
    assert 250 <= len({word for u in said for word in spoken_words(u.text)}) <= 500
    assert len({u.text for u in said}) > 2400


@pytest.mark.parametrize("seed", [0, 7])
def test_answers_are_those_a_program_finds(seed):
    world, said = utterances("question_answer", 600, seed)
    for utterance in said:
        (_, question, _), (_, reply, expected) = utterance.turns
        assert answer(world, question) == expected
        assert is_correct(world, question, reply)
    assert len({u.turns[0][1].split()[0] for u in said}) >= 4


def test_a_wrong_answer_is_told_from_a_right_one():
    world = make_world(0)
    anna = world.people["Anna"]
    assert is_correct(world, "Where does Anna live?", f"I think in {anna.home}.")
    wrong = "Oslo" if anna.home != "Oslo" else "Rome"
    assert not is_correct(world, "Where does Anna live?", f"Anna lives in {wrong}.")
    assert answer(world, "Why is the sky blue?") is None
    assert answer(world, "what is seven plus five?") == "twelve"
    assert answer(world, "Which day comes after Sunday?") == "Monday"


def test_facts_are_the_same_in_every_mention():
    world, said = utterances("sentence", 3000)
    for utterance in said:
        text = utterance.text
        if " lives in " in text and " works as " in text:
            name, home, job = text.split()[0], text.split(" lives in ")[1].split()[0], text.rstrip(".").split()[-1]
            assert (world.people[name].home, world.people[name].job) == (home, job)


def test_turns_of_a_dialogue_alternate_and_hold_their_answers():
    _, said = utterances("dialogue", 200)
    for utterance in said:
        voices = [voice for voice, _, _ in utterance.turns]
        assert voices == [i % 2 for i in range(len(voices))] and len(voices) >= 3
        held = [(text, expected) for _, text, expected in utterance.turns if expected]
        assert held and all(expected.lower() in spoken_words(text) for text, expected in held)


def test_every_question_form_is_answerable_back():
    world, said = utterances("question_answer", 1500)
    forms = {" ".join(u.turns[0][1].split()[:2]) for u in said}
    assert len(forms) >= 8 and len(QUESTIONS) == 14


def test_plurals():
    assert [plural(noun) for noun in ("dog", "fish", "pony", "key")] == ["dogs", "fish", "ponies", "keys"]
