"""Text as it grows: what each new id adds to it, also where a letter takes several ids."""

import dataclasses
from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
KEPT = 16
"""Ids whose text is looked at: a piece is spelt by what stands before it, not by all of it."""


@dataclasses.dataclass
class Spelling:
    """`add(id)` gives the text that it finishes, ids from `size` on are marks and add nothing.

    `tokenizer`: has `decode(ids)`. What the pieces add up to is `tokenizer.decode` of all ids.
    """

    tokenizer: Any
    size: int
    _ids: list[int] = dataclasses.field(default_factory=list)
    _given: str = ""

    def begun(self) -> "Spelling":
        """The same with nothing written."""
        return Spelling(self.tokenizer, self.size)

    def add(self, token: int) -> str:
        """What is new of the text; nothing of marks, of ids below 0 and of a letter that is not complete."""
        if not 0 <= token < self.size:
            return ""
        self._ids.append(token)
        text = self.tokenizer.decode(self._ids)
        if text.endswith(UNFINISHED):
            return ""
        new = text[len(self._given) :]
        self._given = text
        self._forget()
        return new

    def _forget(self) -> None:
        """Leave the last ids alone, once there are enough."""
        if len(self._ids) < 2 * KEPT:
            return
        kept: Sequence[int] = self._ids[-KEPT:]
        text = self.tokenizer.decode(kept)
        if not text.startswith(UNFINISHED):
            self._ids, self._given = list(kept), text
