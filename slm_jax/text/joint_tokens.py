"""The tokens of a text model and what was put behind them, in one id space: marks, units, pitch, style."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.config import content_hash
from slm_jax.core.errors import require
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.marked_tokens import MarkedTokens

Spelling = tuple[str, str]
"""A range and how its ids are spelt, such as `("units", "[Hu{}]")`."""


class JointTokens:
    """The tokens of a text model with the specials and ranges of `vocabulary` behind them (see `MarkedTokens`).

    In `encode_marked` new specials count as well as those of the text. A tokenizer may know the new ids already, as
    those do that are published with such models; it must have them where the vocabulary does (see `check_ids`).
    """

    def __init__(self, tokens: MarkedTokens, vocabulary: ExpandedVocabulary) -> None:
        if tokens.size > vocabulary.text:
            check_ids(tokens, vocabulary)
        self.tokens, self.vocabulary = tokens, vocabulary
        longest_first = sorted(vocabulary.specials, key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else r"(?!)()")

    @property
    def size(self) -> int:
        """Number of ids, units and marks among them."""
        return self.vocabulary.size

    def special(self, name: str) -> int:
        """Id of a mark, or of a special token of the text; raises `UserError` when there is none."""
        return self.vocabulary.special(name) if name in self.vocabulary.specials else self.tokens.special(name)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it is: nobody can slip a mark in."""
        return self.tokens.encode(text)

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which marks and special tokens are spelt out."""
        found: list[int] = []
        for place, piece in enumerate(self._marks.split(text)):
            found += [self.special(piece)] if place % 2 else self.tokens.encode_marked(piece) if piece else []
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text; marks, units and specials are left out."""
        return self.tokens.decode([one for one in ids if one < self.vocabulary.text])

    @cached_property
    def speech(self) -> Bool[np.ndarray, "V"]:
        """Which ids belong to ranges of speech."""
        return self.vocabulary.range_mask(*(name for name, _ in self.vocabulary.ranges))

    def is_speech(self, ids: Int[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
        """Which of these ids are units, pitch or style; rows of a table that nobody uses are none."""
        return self.speech[np.minimum(ids, self.size - 1)] & (ids < self.size)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What must agree where a model that reads these ids goes on: the vocabulary, its hash, the spelling."""
        return {
            "vocabulary": self.vocabulary.to_json(),
            "vocabulary_hash": self.vocabulary.content_hash(),
            "spelling": content_hash([self.tokens.decode([one]) for one in range(min(self._text))]),
        }

    @property
    def _text(self) -> tuple[int, int]:
        """Ids of the tokenizer, and rows that the vocabulary has for text."""
        return self.tokens.size, self.vocabulary.text


def check_ids(tokens: MarkedTokens, vocabulary: ExpandedVocabulary, spelling: Sequence[Spelling] = ()) -> None:
    """Raise `UserError` unless a tokenizer that knows the marks and units itself has them at their ids.

    `spelling`: of the ranges. As published with SpeechGPT (`<0>`) and SpiRit-LM (`[Hu0]`): added tokens.
    """
    wanted = {name: vocabulary.special(name) for name in vocabulary.specials}
    for name, form in spelling:
        first, end = vocabulary.bounds(name)
        wanted |= {form.format(place - first): place for place in range(first, end)}
    for name, place in wanted.items():
        require(tokens.special(name) == place, f"id of {name}", tokens.special(name), f"the vocabulary has {place}")
