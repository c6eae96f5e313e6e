"""Answers to questions: exact match, token F1 (Rajpurkar et al. 2016), and how many could not be read at all."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from slm_jax.core.errors import require
from slm_jax.evaluation.transcription import normaliser

ARTICLES = frozenset(("a", "an", "the"))


@dataclasses.dataclass(frozen=True)
class AnswerScores:
    """Means over all questions. One that could not be parsed counts as wrong, and in `unparsed` (never left out)."""

    exact: float | None
    f1: float | None
    contains: float | None
    unparsed: int
    questions: int


def score_answers(
    expected: Sequence[str],
    given: Sequence[str],
    parse: Callable[[str], str | None] = lambda text: text if text.strip() else None,
    language: str = "en",
) -> AnswerScores:
    """Scores of free answers against expected ones, both normalised and without articles.

    `parse` takes the answer out of what was said, None where there is none. `contains`: every expected word stands in
    what was said. Raises `UserError` when there are not as many answers as questions.
    """
    require(len(expected) == len(given), "answers", len(given), f"one for each of the {len(expected)} questions")
    parsed = [parse(text) for text in given]
    rows = [_scores(true, said, language) for true, said in zip(expected, parsed, strict=True)]
    exact, f1, contains = (_mean([row[place] for row in rows]) for place in range(3))
    return AnswerScores(exact, f1, contains, unparsed=sum(one is None for one in parsed), questions=len(rows))


def one_of(labels: Sequence[str], language: str = "en") -> Callable[[str], str | None]:
    """Takes the one of `labels` that a reply names out of it; None where it names none or several."""
    plain = normaliser(language)
    known = {plain(label): label for label in labels}

    def parse(text: str) -> str | None:
        named = {known[word] for word in plain(text).split() if word in known}
        return named.pop() if len(named) == 1 else None

    return parse


def token_f1(expected: Sequence[str], given: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, repetitions counted; two empty answers agree."""
    if not expected or not given:
        return float(list(expected) == list(given))
    shared = sum((Counter(expected) & Counter(given)).values())
    return 2 * shared / (len(expected) + len(given))


def words_of(text: str, language: str = "en") -> list[str]:
    """Normalised words without articles."""
    return [word for word in normaliser(language)(text).split() if word not in ARTICLES]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _scores(expected: str, given: str | None, language: str) -> tuple[float, float, float]:
    if given is None:
        return 0.0, 0.0, 0.0
    true, said = words_of(expected, language), words_of(given, language)
    return float(true == said), token_f1(true, said), float(set(true) <= set(said))
