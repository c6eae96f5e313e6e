"""A text table with ids after it: units, specials and task tags for a language model that knew text only."""

from functools import cached_property

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.text.vocabulary import Ids, Mask, Vocabulary

TEXT = "text"


class ExpandedVocabulary(Config):
    """The `text` ids of a tokenizer keep their places from 0; `specials` and then named `ranges` follow.

    `text`: rows of the text model's table, those among them that nobody uses included. `specials_last`: the ranges
    come first, as in SpeechGPT (Zhang et al. 2023), which appends its units and then its marks. Raises `UserError` for
    empty or double names.
    """

    text: int
    specials: tuple[str, ...] = ()
    ranges: tuple[tuple[str, int], ...] = ()
    specials_last: bool = False

    def __post_init__(self) -> None:
        require(self.text >= 1, "text", self.text, "rows of the text table, at least 1")
        require(bool(self.specials or self.ranges), "specials and ranges", (), "nothing to expand by")
        _ = self.ids

    @cached_property
    def ids(self) -> Vocabulary:
        """The same as a `Vocabulary`, in which a special is a range of one id."""
        singles = tuple((name, 1) for name in self.specials)
        new = (*self.ranges, *singles) if self.specials_last else (*singles, *self.ranges)
        return Vocabulary(specials=(), ranges=((TEXT, self.text), *new))

    @property
    def size(self) -> int:
        """Number of ids, the text's included."""
        return self.ids.size

    @property
    def extra(self) -> int:
        """Number of new ids: what `sequence_models.expansion.expanded` is asked for."""
        return self.size - self.text

    def special(self, name: str) -> int:
        """Id of a special; raises `UserError` naming the nearest known one."""
        require(name in self.specials, "special", name, f"must be one of {', '.join(self.specials) or 'none'}")
        return self.ids.bounds(name)[0]

    def bounds(self, name: str) -> tuple[int, int]:
        """First and one-past-last id of a range, of `text` or of a special."""
        return self.ids.bounds(name)

    def encode_range(self, name: str, ids: Ids) -> Ids:
        """Ids of a range (from 0) as ids of the table; see `Vocabulary.encode_range`."""
        return self.ids.encode_range(name, ids)

    def decode_range(self, name: str, ids: Ids) -> tuple[Ids, Mask]:
        """Ids of a range (from 0) and the mask of what belongs to it."""
        return self.ids.decode_range(name, ids)

    def range_mask(self, *names: str, padded_to: int | None = None) -> np.ndarray:
        """Bool `[V]`: which ids belong to the named ranges and specials."""
        return self.ids.range_mask(*names, padded_to=padded_to)

    def explain_difference(self, other: "ExpandedVocabulary") -> str:
        """Both vocabularies and their differing fields, for the refusal of a mismatch; empty when they are equal."""
        return self.ids.explain_difference(other.ids)
