"""Words in time from the frames of characters and bytes."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.text.tokenizers import ByteTokenizer, CharacterTokenizerConfig
from slm_jax.token_compression.word_times import word_slices, word_times

CHARACTERS = CharacterTokenizerConfig(characters=" abcdeé").make()


def spans_of(tokens: int) -> np.ndarray:
    """Token i is said in frames 2 i and 2 i + 1, and what follows is padding."""
    first = 2 * np.arange(tokens)
    return np.concatenate([np.stack([first, first + 2], axis=1), np.zeros((3, 2), int)])


@pytest.mark.parametrize(("tokenizer", "slices"), [(CHARACTERS, [[1, 4], [6, 8]]), (ByteTokenizer(), [[1, 5], [7, 9]])])
def test_a_word_lasts_from_its_first_to_its_last_token(tokenizer, slices):
    text = " abé  de"
    words, found = word_slices(text, tokenizer)
    assert words == ("abé", "de") and found.tolist() == slices
    times = word_times(text, tokenizer, spans_of(len(tokenizer.encode(text))), hop_s=0.02, first_s=0.0025)
    assert times.words == words
    np.testing.assert_allclose(times.start_s, [0.0025 + 0.04 * first for first, _ in slices], atol=1e-6)
    np.testing.assert_allclose(times.end_s, [0.0025 + 0.04 * end for _, end in slices], atol=1e-6)


def test_a_text_without_words_has_no_times():
    for text in ("", "  "):
        times = word_times(text, CHARACTERS, np.zeros((0, 2), int), hop_s=0.02)
        assert times.words == () and times.start_s.shape == times.end_s.shape == (0,)


def test_too_few_spans_and_tokenizers_of_whole_words_are_refused():
    with pytest.raises(UserError, match=r"spans is 3: one for each of the 5 tokens"):
        word_times("ab cd", CHARACTERS, spans_of(0), hop_s=0.02)

    class Words:
        size = 2

        def encode(self, text):
            return list(range(len(text.split())))

        def decode(self, ids):
            return " ".join(map(str, ids))

    with pytest.raises(UserError, match="tokenizer is 'Words': it must read one character after the other"):
        word_slices("ab cd", Words())
