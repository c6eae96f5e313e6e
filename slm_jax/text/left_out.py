"""The ids of a tokenizer without some of them, which mean something else to the model."""

from collections.abc import Sequence
from typing import Any

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.text.tokenizers import Tokenizer


class LeftOutConfig(Config):
    """`tokens` makes a tokenizer; its `ids` are no text here (Moshi: 3 is padding, 0 says that a word begins next).

    The others keep their order and close the gaps. What is spelt by an id that is left out is dropped.
    """

    tokens: Config
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        require(len(set(self.ids)) == len(self.ids) > 0, "ids", self.ids, "at least one, all different")

    def make(self) -> "LeftOut":
        """The tokenizer; raises `UserError` for ids that it does not have."""
        return LeftOut(self.tokens.make(), self.ids)  # type: ignore[attr-defined]


class LeftOut:
    """See `LeftOutConfig`."""

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        outside = [i for i in ids if not 0 <= i < tokenizer.size]
        require(not outside, "ids left out", outside, f"the tokenizer has 0 to {tokenizer.size - 1}")
        self._tokenizer: Any = tokenizer
        self.kept = [i for i in range(tokenizer.size) if i not in ids]
        self._place = {token: place for place, token in enumerate(self.kept)}

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.kept)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return [self._place[token] for token in self._tokenizer.encode(text) if token in self._place]

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        return self._tokenizer.decode([self.kept[i] for i in ids])
