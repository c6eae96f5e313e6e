"""Words in any order, to be said again: drawn anew each time, a stretch of long texts, nothing of none."""

import numpy as np

from slm_jax.core.messages import Text
from slm_jax.data.examples.repeated_words import RepeatedWordsConfig


def asked(text, seed=0, **changes):
    return RepeatedWordsConfig(**changes).conversation({"text": text}, 16_000, np.random.default_rng(seed))


def test_the_answer_is_what_is_asked_in_another_order_each_time():
    text = "Anna likes potatoes, but Thomas likes fish."
    orders = set()
    for seed in range(4):
        (question,), (answer,) = (message.parts for message in asked(text, seed))
        assert isinstance(question, Text) and question.text == f"Repeat: {answer.text}"
        assert sorted(answer.text.split()) == sorted(text.split())
        orders.add(answer.text)
    assert len(orders) > 1


def test_of_a_long_text_a_stretch_is_taken_and_of_none_nothing():
    text = " ".join(map(str, range(30)))
    said = sorted(map(int, asked(text, most=5)[1].parts[0].text.split()))
    assert said == list(range(said[0], said[0] + 5))
    assert asked("") is None and RepeatedWordsConfig().words({"text": text}) == ()
