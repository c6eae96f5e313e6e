import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.metrics import METRICS, heading, marked


def test_headings_say_which_way_is_better():
    assert (heading("gen_ppl"), heading("pnmi")) == ("GenPPL ↓", "PNMI ↑")
    with pytest.raises(UserError, match="pnmi"):
        heading("pnmy")


def test_headings_of_other_judges_are_marked_once_and_no_others():
    cells = ["", "stoi", "log_mel_distance", "F1", "f1, other speech", "PNMI ↑", "voiced share", "accuracy"]
    wanted = ["", "stoi ↑", "log_mel_distance ↓", "F1 ↑", "f1, other speech", "PNMI ↑", "voiced share", "accuracy ↑"]
    assert [marked(cell) for cell in cells] == wanted
    assert all(marked(heading(name)) == heading(name) for name in METRICS)


def test_titles_are_told_apart_and_what_reads_words_says_so():
    assert len({one.title for one in METRICS.values()}) == len(METRICS)
    assert {name for name, one in METRICS.items() if one.needs_text and not one.needs_reference} == {
        *("gen_ppl", "ppx", "auto_bleu", "repeated_bigrams", "self_bleu", "vert"),
        *("nats_per_token", "perplexity", "nats_per_word"),
    }
