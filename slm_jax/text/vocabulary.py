"""One id space for everything a sequence model reads: specials first, then named ranges such as speech units."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from slm_jax.core.config import Config, diff, from_json
from slm_jax.core.errors import UserError, nearest, require

Ids = Int[Array | np.ndarray, "..."]
Mask = Bool[Array | np.ndarray, "..."]


class Vocabulary(Config):
    """Ids of special tokens (from 0) and of named ranges, which follow in their order.

    `specials`: names; `ranges`: (name, number of ids) pairs. Raises `UserError` for empty or double names.
    """

    specials: tuple[str, ...] = ("<pad>", "<s>", "</s>")
    ranges: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        names = [*self.specials, *(name for name, _ in self.ranges)]
        require(all(names), "vocabulary names", names, "must not be empty")
        require(len(set(names)) == len(names), "vocabulary names", names, "must differ from each other")
        for name, size in self.ranges:
            require(isinstance(size, int) and size > 0, f"size of range {name!r}", size, "must be a positive integer")

    @property
    def size(self) -> int:
        """Number of ids in use."""
        return len(self.specials) + sum(size for _, size in self.ranges)

    def padded_size(self, multiple: int) -> int:
        """The smallest multiple of `multiple` that holds all ids: the rows of an embedding table that shards evenly."""
        require(multiple > 0, "multiple", multiple, "must be positive")
        return -(-self.size // multiple) * multiple

    @property
    def pad_id(self) -> int:
        """Id of `<pad>`."""
        return self.special("<pad>")

    @property
    def bos_id(self) -> int:
        """Id of `<s>`, which opens a sequence."""
        return self.special("<s>")

    @property
    def eos_id(self) -> int:
        """Id of `</s>`, which closes a sequence."""
        return self.special("</s>")

    def special(self, name: str) -> int:
        """Id of a special token; raises `UserError` naming the nearest known one."""
        if name not in self.specials:
            raise UserError(f"vocabulary has no special token {name!r}{nearest(name, self.specials)}")
        return self.specials.index(name)

    def bounds(self, name: str) -> tuple[int, int]:
        """First and one-past-last id of a range; raises `UserError` naming the nearest known one."""
        start = len(self.specials)
        for known, size in self.ranges:
            if known == name:
                return start, start + size
            start += size
        raise UserError(f"vocabulary has no range {name!r}{nearest(name, [known for known, _ in self.ranges])}")

    def encode_range(self, name: str, ids: Ids) -> Ids:
        """Ids of a range (from 0) as ids of the vocabulary, of the same shape; traceable.

        Raises `UserError` when a concrete id lies outside the range (a traced one cannot be looked at).
        """
        start, end = self.bounds(name)
        if not isinstance(ids, jax.core.Tracer) and np.size(ids):
            low, high = int(np.min(ids)), int(np.max(ids))
            require(low >= 0 and high < end - start, f"ids of range {name!r}", (low, high), f"0 to {end - start - 1}")
        return ids + start

    def decode_range(self, name: str, ids: Ids) -> tuple[Ids, Mask]:
        """Ids of a range (from 0) and the mask of what belongs to it; 0 elsewhere (specials, other ranges)."""
        start, end = self.bounds(name)
        inside = (ids >= start) & (ids < end)
        where = jnp.where if isinstance(ids, jax.Array) else np.where
        return where(inside, ids - start, 0), inside

    def range_mask(self, *names: str, padded_to: int | None = None) -> np.ndarray:
        """Bool `[V]`: which ids belong to the named ranges or specials, e.g. to restrict what may be sampled."""
        allowed = np.zeros(padded_to or self.size, bool)
        for name in names:
            start, end = (self.special(name), self.special(name) + 1) if name in self.specials else self.bounds(name)
            allowed[start:end] = True
        return allowed

    def name_of(self, token_id: int) -> str:
        """`</s>` or `units:17`, for people; raises `UserError` for an id that is not in use."""
        require(0 <= token_id < self.size, "token id", token_id, f"0 to {self.size - 1}")
        if token_id < len(self.specials):
            return self.specials[token_id]
        name = next(name for name, _ in self.ranges if token_id < self.bounds(name)[1])
        return f"{name}:{token_id - self.bounds(name)[0]}"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Vocabulary":
        """The vocabulary that `to_json` wrote; raises `UserError` when the JSON is of something else."""
        made = from_json(data)
        require(isinstance(made, cls), "type", data.get("type"), "must be a vocabulary")
        return made  # type: ignore[return-value]

    def describe(self) -> str:
        """One line with names, id spans and hash."""
        spans = ", ".join(f"{name} {self.bounds(name)[0]}..{self.bounds(name)[1] - 1}" for name, _ in self.ranges)
        return (
            f"{self.size} ids: specials {' '.join(self.specials)}; ranges {spans or 'none'}; hash {self.content_hash()}"
        )

    def explain_difference(self, other: "Vocabulary") -> str:
        """Both vocabularies and their differing fields, for the refusal of a mismatch; empty when they are equal."""
        if self == other:
            return ""
        return "\n".join([f"this:  {self.describe()}", f"other: {other.describe()}", *diff(self, other)])
