import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.generated_text import (
    Transcript,
    load_text_scorer,
    perplexities,
    read_transcripts,
    score_transcripts,
    write_transcripts,
)
from tests.shapes import WHISPER
from tests.text_lm_folder import write_text_lm
from tests.whisper_folder import END, START, write_whisper

TEXTS = ["w1 w2 w3", "w4 w4", "w5", None, "", "w9 w8 w7 w6 w5 w4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text_lm(tmp_path_factory.mktemp("text") / "lm")


@pytest.fixture(scope="module")
def scorer(folder):
    return load_text_scorer(str(folder))


def test_both_published_means_by_hand():
    found = perplexities([1.0, None, 3.0])
    assert found.gen_ppl == pytest.approx(math.e**2)
    assert found.ppx == pytest.approx((math.e + math.e**3) / 2)
    assert (found.texts, found.missing) == (3, 1)
    low, high = found.gen_ppl_interval
    assert (low, high) == (pytest.approx(math.e), pytest.approx(math.e**3))
    assert perplexities([2.0]).gen_ppl_interval is None
    nothing = perplexities([None])
    assert nothing.gen_ppl is None and nothing.ppx is None and nothing.missing == 1


def test_nats_are_those_of_the_model_one_text_at_a_time(scorer):
    found = scorer.nats_per_token(TEXTS)
    assert found[2:5] == [None, None, None]  # one word follows nothing; then no sound, and no word
    ids = jnp.asarray([[int(word[1:]) for word in TEXTS[5].split()]])
    logits = jax.jit(lambda ids: scorer.model.apply({"params": scorer.params}, ids))(ids)
    logits = np.asarray(logits, np.float64)[0, :-1]
    chosen = logits[np.arange(5), ids[0, 1:]] - np.log(np.exp(logits).sum(-1))
    assert found[5] == pytest.approx(-chosen.mean(), abs=1e-5)
    assert scorer.nats_per_token(TEXTS[1::-1]) == pytest.approx(found[1::-1])


def test_a_token_to_begin_with_makes_the_first_word_count(folder, scorer):
    begun = load_text_scorer(str(folder), start="<|endoftext|>")
    assert begun.start == END
    found = begun.nats_per_token(TEXTS)
    assert [value is None for value in found] == [False, False, False, True, True, False]
    assert found[0] != scorer.nats_per_token(TEXTS[:1])[0]


def test_figures_of_groups_compare_draw_by_draw(scorer):
    said = [
        Transcript("recorded", "a", 0, 1.0, "a dog a dog"),
        Transcript("recorded", "b", 0, 1.0, "a dog sat"),
        Transcript("continuations", "a", 0, 1.0, "A dog, a dog."),
        Transcript("continuations", "b", 0, 1.0, "a dog sat"),
        Transcript("continuations", "a", 1, 1.0, "no word"),
        Transcript("continuations", "b", 1, 0.0, None),
    ]
    figures = score_transcripts(said, scorer)
    real, made = figures["recorded"], figures["continuations"]
    auto, among = (1 * 2 / 3) ** 0.5 / 2, ((2 / 4 * 1 / 3) ** 0.5 + (2 / 3 * 1 / 2) ** 0.5) / 2
    assert (real["auto_bleu"], real["self_bleu"]) == (pytest.approx(auto), pytest.approx(among))
    assert real["vert"] == pytest.approx((auto * among) ** 0.5)
    # the second draw has one text only: no other to be like; its auto-BLEU counts
    assert (made["self_bleu"], made["vert"]) == (real["self_bleu"], real["vert"])
    assert made["auto_bleu"] == pytest.approx(auto * 2 / 3)
    assert (made["texts"], made["missing"]) == (4, 1)
    assert real["gen_ppl"] == pytest.approx(math.exp(np.mean(scorer.nats_per_token(["a dog a dog", "a dog sat"]))))


def test_transcripts_are_kept_and_scored_again(tmp_path, scorer):
    said = [Transcript("recorded", "a", 0, 1.5, "w1 w2 č"), Transcript("recorded", "b", 0, 0.0, None)]
    write_transcripts(tmp_path / "said.jsonl", {"samples": 2}, said)
    settings, again = read_transcripts(tmp_path / "said.jsonl")
    assert settings == {"samples": 2} and again == said
    assert score_transcripts(again, scorer) == score_transcripts(said, scorer)
    for text in ("", "{}\n", '{"settings": {}}\n{"a": 1}\n', "no"):
        (tmp_path / "other").write_text(text)
        with pytest.raises(UserError, match="holds no transcripts"):
            read_transcripts(tmp_path / "other")


def test_what_is_no_language_model_of_text_is_refused(tmp_path, folder):
    whisper = write_whisper(tmp_path / "whisper", WHISPER)
    with pytest.raises(UserError, match="holds a WhisperConfig, and a language model is needed"):
        load_text_scorer(str(whisper))
    with pytest.raises(UserError, match="text_lm is"):
        load_text_scorer(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no token"):
        load_text_scorer(str(folder), start="<s>")
    assert START != END
