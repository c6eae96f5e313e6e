"""Word and character errors."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.transcription import Errors, character_errors, normaliser, word_errors


def test_errors_are_counted_by_kind_and_over_all_words():
    found = word_errors(["the red house", "it is cold", ""], ["the read house now", "it cold", "oh"])
    assert found == Errors(substitutions=1, deletions=1, insertions=2, reference=6)
    assert found.rate == pytest.approx(4 / 6)


def test_the_normaliser_forgives_spelling_and_numbers_but_no_words():
    assert word_errors(["Mr. Brown's colour: twenty-one!"], ["mister brown's color 21"]).rate == 0
    assert word_errors(["twenty-one"], ["22"]).rate == 1
    assert normaliser("cs")("Ahoj, Světe!").split() == ["ahoj", "světe"]


def test_nothing_said_is_all_deletions_and_nothing_to_say_has_no_rate():
    assert word_errors(["one two three"], [""]) == Errors(0, 1, 0, 1)  # numbers are one word: 123
    assert word_errors(["red blue"], [""]).rate == 1
    assert word_errors([], []).rate is None and word_errors([""], [""]).rate is None


def test_characters():
    assert character_errors(["abcd"], ["abxd"]).rate == 0.25


def test_a_missing_transcript_is_refused():
    with pytest.raises(UserError, match="one for each of the 2 references"):
        word_errors(["a", "b"], ["a"])
