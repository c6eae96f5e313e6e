"""Quantizers side by side: of the same latent, their results added (split RVQ), or each of its share of the channels.

Source: Défossez et al. 2024, section 3.3.3 (one book that a teacher gives meaning, the others beside it); Yang et al.
2023 (groups of channels).
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames
from slm_jax.quantizers.residual import Quantized, ResidualVQ, ResidualVQConfig

SIDE_BY_SIDE = ("ids", "used", "commitment", "codes")
"""Fields of `Quantized` of which every book has its own column."""


class ParallelVQConfig(Config):
    """`parts` that all read the latent ("latent") or neighbouring shares of its channels ("channels")."""

    parts: tuple[ResidualVQConfig, ...]
    over: Literal["latent", "channels"] = "latent"

    def __post_init__(self) -> None:
        require(bool(self.parts), "parts", self.parts, "at least one")
        same = {(part.width if self.over == "latent" else None, part.stride, part.counted) for part in self.parts}
        rule = "of one rate, all counted or none, and of one width where they read the same"
        require(len(same) == 1, "parts", len(same), rule)

    @property
    def width(self) -> int:
        """Channels of the latent."""
        return self.parts[0].width if self.over == "latent" else sum(part.width for part in self.parts)

    @property
    def books(self) -> int:
        """Codebooks of all parts."""
        return sum(part.books for part in self.parts)

    @property
    def stride(self) -> int:
        """Latents of one frame of tokens."""
        return self.parts[0].stride

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of the codebook behind every column of tokens."""
        return tuple(size for part in self.parts for size in part.sizes)

    @property
    def bits(self) -> float:
        """Of one frame of tokens."""
        return sum(part.bits for part in self.parts)

    @property
    def counted(self) -> bool:
        """Whether averages move the codebooks."""
        return self.parts[0].counted

    def columns(self, books: int | None = None) -> int:
        """Columns of the first `books` books; raises `UserError` where there are not so many."""
        return sum(part.columns(count) for part, count in zip(self.parts, self.shares(books), strict=False))

    def shares(self, books: int | None = None) -> list[int]:
        """How many of the first `books` books are each part's; parts that have none are left out."""
        left = self.books if books is None else books
        require(1 <= left <= self.books, "books", left, f"the quantizer has {self.books}")
        shares = []
        for part in self.parts:
            shares.append(min(left, part.books))
            left -= shares[-1]
        return [share for share in shares if share]

    def moved(self, variables: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
        """Its part of the collection of codebooks after a step."""
        names = [f"parts_{i}" for i in range(len(self.parts))]
        return {n: part.moved(variables[n], seen[n]) for n, part in zip(names, self.parts, strict=True)}

    def learnt_by_gradient(self) -> "ParallelVQConfig":
        """The same with codebooks among the parameters."""
        return self.replace(parts=tuple(part.learnt_by_gradient() for part in self.parts))

    def make(self, name: str | None = None) -> "ParallelVQ":
        """The module."""
        return ParallelVQ(self, name=name)


class ParallelVQ(nn.Module):
    """Latents to ids and back; the columns of the first part come first."""

    config: ParallelVQConfig

    def setup(self) -> None:
        self.parts: list[ResidualVQ] = [part.make() for part in self.config.parts]

    def __call__(self, frames: Frames, *, rows: Int[Array, "B"] | None = None, deterministic: bool = True) -> Quantized:
        """As `ResidualVQ`: losses and books of the parts side by side."""
        found = [
            part(own, rows=rows, deterministic=deterministic)
            for part, own in zip(self.parts, self._own(frames), strict=True)
        ]
        joined = [jnp.concatenate([getattr(one, name) for one in found], -1) for name in SIDE_BY_SIDE]
        ids, used, commitment, codes = joined
        seen = {f"parts_{i}": one.seen for i, one in enumerate(found)} if self.config.counted else None
        values = self._together([one.values for one in found])
        return Quantized(values, ids, used, commitment, codes, seen, found[0].first)

    def encode(self, frames: Frames, books: int | None = None) -> Codes:
        """Ids of the first `books` books, all of them for None."""
        shares = self.config.shares(books)
        parts = zip(self.parts, self._own(frames), shares, strict=False)
        found = [part.encode(own, share) for part, own, share in parts]
        return Codes(jnp.concatenate([codes.ids for codes in found], -1), found[0].mask)

    def decode(self, codes: Codes) -> Frames:
        """What ids stand for; of parts without a column nothing is added, and channels are zero."""
        start, found, mask = 0, [], jnp.repeat(codes.mask, self.config.stride, axis=1)
        for part in self.parts:
            ids = codes.ids[..., start : start + part.config.columns()]
            start += part.config.columns()
            silent = jnp.zeros((*mask.shape, part.config.width))
            found.append(part.decode(Codes(ids, codes.mask)).values if ids.shape[-1] else silent)
        return Frames(self._together(found), mask)

    def given_to(self, book: int, frames: Frames) -> Array:
        """What a book is asked for, after those before it of its part."""
        for part, own in zip(self.parts, self._own(frames), strict=True):
            if book < part.config.books:
                return part.given_to(book, own)
            book -= part.config.books
        raise ValueError("no such book")

    def _own(self, frames: Frames) -> list[Frames]:
        """What each part reads."""
        if self.config.over == "latent":
            return [frames] * len(self.parts)
        ends = [sum(part.width for part in self.config.parts[: i + 1]) for i in range(len(self.parts) - 1)]
        return [Frames(values, frames.mask) for values in jnp.split(frames.values, ends, -1)]

    def _together(self, values: list[Array]) -> Array:
        return sum(values[1:], values[0]) if self.config.over == "latent" else jnp.concatenate(values, -1)
