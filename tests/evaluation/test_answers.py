"""Scores of answers."""

import re

import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.answers import one_of, score_answers, token_f1


def test_exact_f1_and_contains():
    found = score_answers(["The baker.", "seven", "red"], ["a baker", "It opens at seven.", "blue"])
    assert found.exact == pytest.approx(1 / 3)
    assert found.contains == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx((1 + 2 / 5 + 0) / 3)
    assert (found.unparsed, found.questions) == (0, 3)


def test_what_cannot_be_parsed_is_wrong_and_counted():
    def option(text):
        match = re.search(r"\b([AB])\b", text)
        return match and match[1]

    found = score_answers(["A", "B"], ["I think A", "neither"], parse=option)
    assert found.unparsed == 1 and found.exact is not None
    assert score_answers(["red", "blue"], ["", "  "]).unparsed == 2
    assert score_answers(["red", "blue"], ["", "  "]).exact == 0


def test_without_questions_there_are_no_means_but_counts():
    found = score_answers([], [])
    assert (found.exact, found.unparsed, found.questions) == (None, 0, 0)


def test_f1_counts_repetitions():
    assert token_f1(["no", "no"], ["no"]) == pytest.approx(2 / 3)
    assert token_f1([], []) == 1 and token_f1(["a"], []) == 0


def test_as_many_answers_as_questions():
    with pytest.raises(UserError, match="one for each of the 2 questions"):
        score_answers(["a", "b"], ["a"])


def test_one_of_several_labels():
    parse = one_of(["Slow", "twenty", "fast"])
    assert parse("It's SLOW, really.") == "Slow" and parse("20") == "twenty"
    assert parse("slow or fast") is None and parse("quick") is None and parse("") is None
