"""BLEU and chrF with their signatures, by hand where a hand can count."""

import math

import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.translation import bleu, chrf

REFERENCES = ["the cat is on the mat", "two dogs run home"]


def test_equal_texts_are_perfect():
    for metric in (bleu, chrf):
        found = metric(REFERENCES, REFERENCES)
        assert found.value == pytest.approx(100) and found.interval == pytest.approx((100, 100))


def test_bleu_by_hand():
    """One text of six words, five of them right: 5/6, 3/5, 2/4, 1/3 of its n-grams stand in the reference."""
    found = bleu(REFERENCES[:1], ["the cat is on a mat"])
    shares = (5 / 6, 3 / 5, 2 / 4, 1 / 3)
    assert found.value == pytest.approx(100 * math.prod(shares) ** (1 / 4))
    assert found.interval is None
    assert "tok:13a" in found.signature and "nrefs:1" in found.signature and "version:" in found.signature
    shorter = bleu(REFERENCES[:1], ["the cat is on"])
    assert shorter.value == pytest.approx(100 * math.exp(1 - 6 / 4)), "all right and two words too few"


def test_chrf_by_hand():
    """`abc` against `abd`: 2/3 of characters, 1/2 of pairs, 0 of triples are right in either direction."""
    found = chrf(["abd"], ["abc"])
    assert found.value == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3, abs=0.01)
    assert "nc:6" in found.signature and "nw:0" in found.signature


def test_corpus_scores_weigh_long_texts_more_and_intervals_hold_them():
    said = ["the cat is on the mat", "a bird sings"]
    both = bleu(REFERENCES, said)
    alone = [bleu([true], [one]).value for true, one in zip(REFERENCES, said, strict=True)]
    assert min(alone) < both.value < max(alone) and both.value != pytest.approx(sum(alone) / 2, abs=1)
    assert both.interval[0] < both.value < both.interval[1]
    assert bleu(REFERENCES, said).interval == both.interval, "the same every time"


def test_other_languages_are_cut_otherwise_and_nothing_is_nothing():
    assert "tok:zh" in bleu(["你好吗"], ["你好"], "zh").signature
    assert bleu(["你好吗朋友"], ["你好吗朋友"], "zh").value == pytest.approx(100)
    assert bleu([], []).value is None and chrf([], []).interval is None
    with pytest.raises(UserError, match="one for each of 2 references"):
        bleu(REFERENCES, ["one"])
