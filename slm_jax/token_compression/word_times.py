"""When words are said, from the frames of their characters or bytes."""

from itertools import accumulate
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require
from slm_jax.text.tokenizers import Tokenizer


class WordTimes(NamedTuple):
    """Words of one row in time: `start_s` and `end_s` in seconds."""

    words: tuple[str, ...]
    start_s: Float[np.ndarray, "W"]
    end_s: Float[np.ndarray, "W"]


def word_slices(text: str, tokenizer: Tokenizer) -> tuple[tuple[str, ...], Int[np.ndarray, "W 2"]]:
    """The words of a text (what stands between white space), and first and one-past-last token of each.

    For tokenizers that read one character after the other, such as those of characters and bytes; raises `UserError`
    for one of whole words.
    """
    places = [0, *accumulate(len(tokenizer.encode(character)) for character in text)]
    whole = len(tokenizer.encode(text))
    require(places[-1] == whole, "tokenizer", type(tokenizer).__name__, "it must read one character after the other")
    inside = np.asarray([not character.isspace() for character in text], bool)
    edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2)
    words = tuple(text[first:end] for first, end in edges)
    return words, np.asarray(places, np.int32)[edges]


def word_times(
    text: str, tokenizer: Tokenizer, spans: Int[np.ndarray, "L 2"], hop_s: float, first_s: float = 0.0
) -> WordTimes:
    """Times of the words of one text from the frame spans of its tokens, of which `spans` may have more (padding).

    A word begins with the first frame of its first token and ends with the last frame of its last one. Frame t lasts
    from `first_s` + t `hop_s` (seconds) for `hop_s`: where frames overlap, the stretch around their middle. Raises
    `UserError` when there are fewer spans than tokens.
    """
    words, slices = word_slices(text, tokenizer)
    tokens = int(slices.max(initial=0))
    require(tokens <= len(spans), "spans", len(spans), f"one for each of the {tokens} tokens of the words")
    first, last = spans[slices[:, 0], 0], spans[slices[:, 1] - 1, 1]
    return WordTimes(words, *((first_s + hop_s * frames).astype(np.float32) for frames in (first, last)))
