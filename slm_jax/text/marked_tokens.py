"""Specials and plain text in the ids of one language model: what templates are written in."""

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from slm_jax.core.config import Config
from slm_jax.text.tokenizers import ByteTokenizerConfig
from slm_jax.text.vocabulary import Vocabulary

SPECIALS = ("<pad>", "<s>", "</s>")


@runtime_checkable
class MarkedTokens(Protocol):
    """Text to the ids of a language model's table and back.

    `encode` takes text as it is, `encode_marked` that of templates, where special tokens are spelt out; `decode` leaves
    specials out. `text.tokenizers.TokenizerFile` is one.
    """

    @property
    def size(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_marked(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def special(self, name: str) -> int: ...


def encode_together(tokens: MarkedTokens, texts: Sequence[tuple[str, bool]]) -> list[int]:
    """Ids of neighbouring texts as of one, special tokens counting in those that are marks: (text, is it a mark?).

    Sub-words reach over the border of a mark and of words, as they do where a template is filled in and read whole. A
    special token that words spell stays words; then each text is read apart from the others.
    """
    words = [text for text, is_mark in texts if not is_mark]
    if all(tokens.encode_marked(text) == tokens.encode(text) for text in words):
        return tokens.encode_marked("".join(text for text, _ in texts))
    apart = (tokens.encode_marked(text) if is_mark else tokens.encode(text) for text, is_mark in texts)
    return [token for ids in apart for token in ids]


class SpecialsConfig(Config):
    """Special tokens, from id 0, and the ids of a plain tokenizer after them."""

    specials: tuple[str, ...] = SPECIALS
    tokenizer: Config = ByteTokenizerConfig()

    def make(self) -> "WithSpecials":
        """The tokens."""
        return WithSpecials(self)


class WithSpecials:
    """A plain tokenizer behind special tokens (see `MarkedTokens`)."""

    def __init__(self, config: SpecialsConfig) -> None:
        self.config = config
        self._plain: Any = config.tokenizer.make()  # type: ignore[attr-defined]
        self.vocabulary = Vocabulary(specials=config.specials, ranges=(("text", self._plain.size),))
        longest_first = sorted(config.specials, key=len, reverse=True)
        self._specials = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.vocabulary.size

    def special(self, name: str) -> int:
        """Id of a special token; raises `UserError` when there is none."""
        return self.vocabulary.special(name)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it is."""
        ids = np.array(self._plain.encode(text), np.int32)
        return np.asarray(self.vocabulary.encode_range("text", ids)).tolist()

    def encode_marked(self, text: str) -> list[int]:
        """Ids of a text in which special tokens are spelt out."""
        found: list[int] = []
        for place, piece in enumerate(self._specials.split(text)):
            found += [self.special(piece)] if place % 2 else self.encode(piece)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text without specials."""
        plain, inside = self.vocabulary.decode_range("text", np.asarray(ids, np.int64))
        return self._plain.decode(np.asarray(plain)[np.asarray(inside)].tolist())
