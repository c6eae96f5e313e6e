import numpy as np
import pytest

from slm_jax.judges.language_model import judge_language_model
from tests.serving.drawn import drawn_unit_speech_lm

ROWS = [np.array([1, 2, 3, 1, 2]), np.array([4, 0, 4])]


@pytest.fixture(scope="module")
def system():
    return drawn_unit_speech_lm()


def test_the_model_stands_beside_ngrams_that_count_the_end_too(system):
    figures = judge_language_model(system, {"train": ROWS, "dev": ROWS[:1], "test": ROWS})
    scores = np.concatenate(system.log_probs(ROWS))
    assert len(scores) == sum(len(row) + 1 for row in ROWS)
    assert figures["model"] == pytest.approx(-scores.mean(), rel=1e-5)
    assert figures["under_bigram"] == pytest.approx(figures["bigram"] - figures["model"])
    assert figures["unigram"] > figures["bigram"]


def test_without_a_dev_split_the_model_is_judged_alone(system):
    figures = judge_language_model(system, {"train": ROWS, "dev": [], "test": ROWS})
    assert figures["model"] > 0
    assert [figures[name] for name in ("unigram", "bigram", "trigram", "under_bigram")] == [None] * 4
