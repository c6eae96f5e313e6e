import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.diversity import auto_bleu, diversity, repeated, self_bleu


def grams(tokens, n):
    return [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]


def slow_auto_bleu(tokens):
    """As GSLM counts: what stands left of an n-gram, and what stands right of it."""
    shares = []
    for n in (1, 2):
        found = grams(tokens, n)
        rest = [grams(tokens[:p], n) + grams(tokens[p + n :], n) for p in range(len(found))]
        shares.append(np.mean([gram in others for gram, others in zip(found, rest, strict=True)]))
    return np.sqrt(shares[0] * shares[1])


@pytest.mark.parametrize(
    ("text", "bigrams", "gslm"),
    [
        ("the cat saw the cat", 2 / 4, (4 / 5 * 2 / 4) ** 0.5),
        ("a b c d", 0.0, 0.0),
        ("a a a", 1.0, 0.0),  # the two bigrams share the word in the middle
        ("a a a a", 1.0, (1.0 * 2 / 3) ** 0.5),  # the first and the last lie apart
        ("word", None, None),
        ("", None, None),
    ],
)
def test_auto_bleu_by_hand(text, bigrams, gslm):
    for tokens in (text.split(), [hash(word) for word in text.split()]):
        assert repeated(tokens) == bigrams
        assert auto_bleu(tokens) == (None if gslm is None else pytest.approx(gslm))


def test_auto_bleu_equals_the_slow_count_on_units():
    rng = np.random.default_rng(0)
    for length in range(2, 30):
        units = rng.integers(0, 6, length)
        assert auto_bleu(units) == pytest.approx(slow_auto_bleu(units.tolist()))


def test_self_bleu_by_hand():
    said = [["a", "a", "b"], ["a", "b"], ["c", "d"]]
    # of "a a b" two words (one a is too many) and one bigram; of "a b" all; of "c d" nothing
    assert self_bleu(said) == pytest.approx([(2 / 3 * 1 / 2) ** 0.5, 1.0, 0.0])
    assert self_bleu([["a", "b"], ["a", "b"]]) == [1.0, 1.0]
    assert self_bleu([["a"], ["a"]]) == [0.0, 0.0]  # there is no bigram to share
    with pytest.raises(UserError, match="at least two"):
        self_bleu([["a", "b"]])


def test_self_bleu_without_brevity_is_that_of_sacrebleu():
    """Long utterances have no penalty there either, so that both count the same."""
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(1)
    said = [rng.integers(0, 9, 40) for _ in range(5)]
    texts = [" ".join(f"w{unit}" for unit in one) for one in said]
    judge = BLEU(max_ngram_order=2, tokenize="none", smooth_method="none", effective_order=True)
    known = [judge.sentence_score(text, [other for other in texts if other is not text]) for text in texts]
    assert all(one.bp == 1 for one in known)
    assert self_bleu(said) == pytest.approx([one.score / 100 for one in known])


def test_the_figures_of_a_set():
    said = [one.split() for one in ("a b a b", "a b c c", "x", "")]
    found = diversity(said)
    assert (found.utterances, found.short) == (4, 2)
    auto = ((1.0 * 2 / 3) ** 0.5 + 0.0) / 2
    among = ((2 / 4 * 1 / 3) ** 0.5 + (2 / 4 * 1 / 3) ** 0.5) / 2
    assert (found.auto_bleu, found.self_bleu) == (pytest.approx(auto), pytest.approx(among))
    assert found.vert == pytest.approx((auto * among) ** 0.5)
    assert found.repeated_bigrams == pytest.approx(1 / 3)
    one = diversity([["a", "b", "a"]])
    assert one.self_bleu is None and one.vert is None and one.auto_bleu_interval is None
    assert set(diversity([[], ["a"]]).to_json().values()) == {None, 2}
