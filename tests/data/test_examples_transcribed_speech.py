"""Utterances with their text spelled out."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.examples.transcribed_speech import BLANK, LETTERS, TranscribedSpeechConfig
from slm_jax.text.tokenizers import CharacterTokenizerConfig

EXAMPLE = TranscribedSpeechConfig(samples=50, labels=8)


def item(text: str, samples: int = 30) -> dict:
    return {"samples": np.full(samples, 16_384, np.int16), "text": text}


def test_a_text_is_spelled_in_the_characters_that_there_are():
    assert EXAMPLE.plain("  It's — 3 o'Clock, Anna!\n") == "it's o'clock anna"
    capitals = TranscribedSpeechConfig(samples=1, labels=1, tokenizer=CharacterTokenizerConfig(characters="aAb"))
    assert capitals.plain("A b Ba") == "Abba"  # no space among them
    assert EXAMPLE.plain("...") == ""


def test_labels_are_the_characters_after_the_blank():
    labels = EXAMPLE.labels_of("Ab c")
    assert labels.tolist() == [1 + LETTERS.characters.index(c) for c in "ab c"] and labels.dtype == np.int32
    assert EXAMPLE.text_of(labels) == "ab c" and EXAMPLE.text_of([]) == ""
    assert EXAMPLE.classes == 1 + 28 and BLANK not in labels
    with pytest.raises(UserError, match="character ids"):
        EXAMPLE.text_of([BLANK])


def test_an_example_is_padded_and_masked():
    made = EXAMPLE.make()(item("a cat"), np.random.default_rng(0))
    assert made["samples"].dtype == np.float32 and made["samples"].tolist() == [0.5] * 30 + [0.0] * 20
    assert made["sample_mask"].sum() == 30 and made["sample_mask"][:30].all()
    assert made["labels"].tolist() == [*EXAMPLE.labels_of("a cat"), 0, 0, 0]
    assert made["label_mask"].tolist() == [True] * 5 + [False] * 3


def test_what_has_no_text_or_no_room_does_not_fit():
    assert EXAMPLE.fits(item("12345678 ab", 50)) and EXAMPLE.fits(item("abcdefgh"))
    assert not any(map(EXAMPLE.fits, (item("abcdefghi"), item("123"), item("a", 51))))
