import numpy as np
import pytest

from slm_jax.evaluation.section import JudgeSettings, Lacking
from slm_jax.judges.text_continuation import TextContinuationJudge, halves
from tests.judges.listeners import TEXTS, Listener, Reader, ScoringReader

GOES_ON = ("cats sleep and purr", "men shout", "", "fly north", *(" ".join(text.split()[2:]) for text in TEXTS[4:]))
"""Right for as long as it counts, right first word, nothing, wrong words; then what really follows."""
ALL = JudgeSettings(utterances=8)


def test_agreement_by_hand(context):
    section = TextContinuationJudge().judge(Reader(GOES_ON), context, ALL)
    found = section.figures["text_continuation"]
    assert found["first_word"] == 6 / 8
    assert found["f1"] == pytest.approx((1 + 0.5 + 0 + 0 + 4) / 8)
    assert (found["texts"], found["empty"]) == (8, 1)
    assert found["first_word_other_texts"] <= 1 / 8 and found["f1_other_texts"] < found["f1"]
    assert found["f1_interval"][0] < found["f1"] < found["f1_interval"][1]
    assert "Left out: log-probabilities" in section.words and "nats_per_token" not in found
    shown = section.tables[-1].rows
    assert len(shown) == 6
    for opening, rest, reply in shown:
        number = TEXTS.index(f"{opening} {rest}")
        assert reply == GOES_ON[number]


def test_likelihood_by_hand_beside_shuffled_words(context):
    section = TextContinuationJudge().judge(ScoringReader(GOES_ON), context, ALL)
    found = section.figures["text_continuation"]
    assert found["nats_per_token"] == pytest.approx(np.log(2)) and found["perplexity"] == pytest.approx(2)
    assert found["tokens"] == 40  # four words and an end in each
    assert found["nats_per_word"] == pytest.approx(np.log(2) * 5 / 4)
    assert np.log(2) < found["nats_per_token_shuffled"] < np.log(10)
    assert len(section.tables) == 3 and "Shuffled" in section.words


def test_halves():
    assert halves("a b c") == ("a", "b c") and halves(" a  b ") == ("a", "b")


def test_what_is_lacking(context, bare, empty):
    for place in (bare, empty):
        with pytest.raises(Lacking, match="no held-out utterance has a text of two words"):
            TextContinuationJudge().judge(Reader(GOES_ON), place, ALL)
    with pytest.raises(Lacking, match="the system reads no text"):
        TextContinuationJudge().judge(Listener(TEXTS, reads=frozenset({"speech"})), context, ALL)
    with pytest.raises(Lacking, match="the system writes no text"):
        TextContinuationJudge().judge(Listener(TEXTS, writes=frozenset({"speech"})), context, ALL)
