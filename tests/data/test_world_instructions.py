"""Instructions about the world: several wordings, answers that are known, and a check that tells right from wrong."""

import itertools

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.corpora.world_facts import make_world
from slm_jax.data.corpora.world_grammar import QUESTIONS
from slm_jax.data.corpora.world_instructions import NAMES, TASKS, instructions, is_right

WORLD = make_world(0)
STYLE = {"speaking_rate": "fast", "energy": "soft", "register": "low"}
SENTENCE = {"turns": [{"speaker": "world-3", "text": "Anna likes two fish.", "sound": "deep", **STYLE}]}
QUESTION = {"turns": [{"speaker": "world-2", "text": "Where does Anna live?", "sound": "high", **STYLE}]}
DIALOGUE = {
    "turns": [
        {"speaker": "world-2", "text": "Do you know Anna?", "sound": "high"},
        {"speaker": "world-13", "text": "Yes, Anna is a cook.", "sound": "deep"},
        {"speaker": "world-2", "text": "I see.", "sound": "high"},
    ]
}
ANSWERS = {
    "transcription": "Anna likes two fish.",
    "last_word": "fish",
    "word_count": "four",
    "speaker": "world-3",
    "voice": "deep",
    "rate": "fast",
    "energy": "soft",
    "register": "low",
    "speakers": "one",
}


def answers(record, **options):
    """Task -> the answer that a right reply holds."""
    found = instructions(record, np.random.default_rng(0), **options)
    return {one.task: one.reply.answer for one in found}


def test_what_is_known_of_a_sentence_a_question_and_a_dialogue():
    assert answers(SENTENCE, world=WORLD) == ANSWERS
    assert answers(QUESTION, world=WORLD)["fact"] == WORLD.people["Anna"].home
    assert "fact" not in answers(QUESTION)
    assert answers(DIALOGUE, world=WORLD) == {
        "transcription": "Do you know Anna? Yes, Anna is a cook. I see.",
        "speakers": "two",
        "first_speaker": "world-2",
        "first_voice": "high",
    }


def test_nobody_is_asked_what_cannot_be_heard():
    assert not {*NAMES} & {*answers(SENTENCE, names_known=False), *answers(DIALOGUE, names_known=False)}
    unlike = [dict(SENTENCE["turns"][0], register="high")]
    assert "voice" not in answers({"turns": unlike}) and answers({"turns": unlike})["register"] == "high"
    plain = {name: value for name, value in SENTENCE["turns"][0].items() if name not in (*STYLE, "sound")}
    assert not {"voice", "rate", "energy", "register"} & {*answers({"turns": [plain]})}
    alike = [dict(turn, sound="high") for turn in DIALOGUE["turns"]]
    assert "first_voice" not in answers({"turns": alike})


def test_every_task_has_wordings_and_its_replies_are_right():
    """All that can be drawn: a reply holds its answer, and the reply of another answer is wrong."""
    seen = {task: set() for task in TASKS}
    for seed, record in itertools.product(range(60), (SENTENCE, QUESTION, DIALOGUE)):
        for task, asked, reply in instructions(record, np.random.default_rng(seed), world=WORLD):
            seen[task].add(asked.text)
            assert (asked.role, reply.role) == ("user", "assistant") and not asked.is_heard and not reply.is_heard
            assert is_right(task, reply.answer, reply.text)
    for task, wordings in seen.items():
        assert len(wordings) >= 4 and wordings == set(TASKS[task].asks)
        for form, label in itertools.product(TASKS[task].replies, TASKS[task].labels):
            right = [other for other in TASKS[task].labels if is_right(task, other, form.format(answer=label))]
            assert right == [label]


def test_wordings_are_drawn_and_repeat_with_their_seed():
    one, same, other = (instructions(SENTENCE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same and one != other


@pytest.mark.parametrize(
    ("task", "answer", "reply", "right"),
    [
        ("rate", "slow", "It is SLOW.", True),
        ("rate", "slow", "It is spoken slowly.", False),
        ("rate", "slow", "slow, normal or fast", False),
        ("word_count", "nine", "There are 9 words.", True),
        ("word_count", "nine", "Nine or ten.", False),
        ("word_count", "nine", "", False),
        ("speaker", "world-3", "I think it is World 3.", True),
        ("speaker", "world-3", "world-13", False),
        ("speaker", "world-3", "world-3 or world-4", False),
        ("transcription", "Anna likes fish.", "They say: anna likes fish", True),
        ("transcription", "Anna likes fish.", "Anna likes red fish.", False),
        ("fact", "London", "Anna lives in London.", True),
        ("fact", "London", "Anna lives in Rome.", False),
    ],
)
def test_right_and_wrong_replies(task, answer, reply, right):
    assert is_right(task, answer, reply) is right


def test_an_unknown_task_is_an_error():
    with pytest.raises(UserError, match="task is 'colour'"):
        is_right("colour", "red", "red")


def test_every_question_of_the_grammar_has_a_factual_answer():
    names = {"p": "Anna", "place": "bakery", "city": "Rome", "d": "Monday", "a": "two", "b": "three", "most": "nine",
             "least": "four", "cold": "cold", "pet_plural": "dogs", "day": "Monday", "thing": "hat"}  # fmt: skip
    for template, _, _ in QUESTIONS:
        text = template.format(**names)
        found = {one.task: one for one in instructions({"turns": [{"speaker": "a", "text": text}]},
                                                       np.random.default_rng(0), world=WORLD)}  # fmt: skip
        assert is_right("fact", found["fact"].reply.answer, found["fact"].reply.text)
