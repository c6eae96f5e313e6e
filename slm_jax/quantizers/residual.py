"""Residual vector quantization: each codebook takes what those before it have left.

Source: Zeghidour et al. 2021, section III-C (books dropped at random); Kumar et al. 2023 (each book looks up in a few
channels of its own); Siuzdak et al. 2024 (books at several rates); Défossez et al. 2024 (one map around all books).
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Codes, Frames
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.quantizers.codebooks import CodebookConfig, Codebooks, Seen, moved, seen_in
from slm_jax.quantizers.estimators import ESTIMATORS


class Quantized(NamedTuple):
    """What training sees of a quantizer.

    `values`: what the decoder reads, with a gradient. `used`: which books count for a row. `commitment`, `codes`: mean
    squared distance of what a book was given to what it chose, where the one or the other is held fixed; 0 where a book
    is not used. `seen`: sums for codebooks that averages move, None where there are none. `first`: what `values` would
    be of the first book alone (of the first part, where quantizers stand side by side), which a teacher may look at.
    """

    values: Float[Array, "B T D"]
    ids: Int[Array, "B T2 K"]
    used: Bool[Array, "B Q"]
    commitment: Float[Array, "B T Q"]
    codes: Float[Array, "B T Q"]
    seen: Any
    first: Float[Array, "B T E"]


class ResidualVQConfig(Config):
    """`books` codebooks over latents of `width` channels.

    `projection`: "none"; "around": one map to the codebooks' channels before all of them and one back; "each": such a
    pair, weight-normalised, for every book. `strides`: latents whose mean each book takes, from coarse to fine, for
    books at several rates; a frame of tokens then has several ids of the finer ones, side by side. `dropout`: share of
    the rows which in training use the first books only, a random number of them: one of `counts` (None: from 1 to all).
    `alike`: all rows of a batch draw the same (EnCodec).
    """

    width: int = 128
    books: int = 8
    codebook: CodebookConfig = CodebookConfig()
    projection: Literal["none", "around", "each"] = "none"
    strides: tuple[int, ...] = ()
    estimator: Literal["straight_through", "rotation"] = "straight_through"
    dropout: float = 0.0
    counts: tuple[int, ...] | None = None
    alike: bool = False

    def __post_init__(self) -> None:
        require(self.books > 0, "books", self.books, "at least one")
        plain = self.projection != "none" or self.codebook.width == self.width
        require(plain, "codebook.width", self.codebook.width, f"{self.width} channels come in, and nothing maps them")
        fits = len(self.strides) in (0, self.books) and all(self.stride % s == 0 for s in self.strides)
        require(fits, "strides", self.strides, f"one for each of {self.books} books, each a part of the largest")
        require(0 <= self.dropout <= 1, "dropout", self.dropout, "must be in [0, 1]")
        known = self.counts is None or (bool(self.counts) and all(1 <= count <= self.books for count in self.counts))
        require(known, "counts", self.counts, f"numbers of books from 1 to {self.books}, at least one")

    @property
    def stride(self) -> int:
        """Latents of one frame of tokens."""
        return max(self.strides, default=1)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Ids of each book in one frame of tokens."""
        return tuple(self.stride // stride for stride in self.strides) or (1,) * self.books

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of the codebook behind every column of tokens."""
        return (self.codebook.size,) * sum(self.repeats)

    @property
    def bits(self) -> float:
        """Of one frame of tokens."""
        return len(self.sizes) * math.log2(self.codebook.size)

    @property
    def counted(self) -> bool:
        """Whether averages move its codebooks."""
        return self.codebook.counted

    def columns(self, books: int | None = None) -> int:
        """Columns of the first `books` books; raises `UserError` where there are not so many."""
        books = self.books if books is None else books
        require(1 <= books <= self.books, "books", books, f"the quantizer has {self.books}")
        return sum(self.repeats[:books])

    def moved(self, variables: dict[str, Any], seen: Seen) -> dict[str, Any]:
        """Its part of the collection of codebooks after a step."""
        return {"codebooks": moved(self.codebook, variables["codebooks"], seen)}

    def learnt_by_gradient(self) -> "ResidualVQConfig":
        """The same with codebooks among the parameters."""
        return self.replace(codebook=self.codebook.replace(learning="gradient"))

    def make(self, name: str | None = None) -> "ResidualVQ":
        """The module."""
        return ResidualVQ(self, name=name)


class ResidualVQ(nn.Module):
    """Latents to ids and back."""

    config: ResidualVQConfig

    def setup(self) -> None:
        c = self.config
        self.codebooks = Codebooks(c.codebook, c.books)
        if c.projection == "around":
            self.into, self.back = _map(c.codebook.width, bias=False), _map(c.width, bias=False)
        if c.projection == "each":
            self.intos = [_map(c.codebook.width, weight_norm=0) for _ in range(c.books)]
            self.backs = [_map(c.width, weight_norm=0) for _ in range(c.books)]

    def __call__(
        self,
        frames: Frames,
        *,
        rows: Int[Array, "B"] | None = None,
        deterministic: bool = True,
    ) -> Quantized:
        """All books at once; training (`deterministic` False) may need the rng `dropout`.

        `rows` tells the rows of a batch apart, for the lottery of vectors that revive codes; None: by their place.
        """
        c, batch = self.config, frames.values.shape[0]
        used = jnp.ones((batch, c.books), bool) if deterministic else self._drawn_books(batch)
        rows = jnp.arange(batch) if rows is None else rows
        start = given = self._into(frames)
        total, ids, commitment, codes, seen = jnp.zeros_like(given), [], [], [], []
        first = total
        for book, stride in enumerate(self._strides):
            vectors = self._before(book, pooled(given, stride))
            mask = frames.mask[:, ::stride] & used[:, book, None]
            chosen = self.codebooks.choose(book, vectors)
            code = self.codebooks.look_up(book, chosen)
            fixed = jax.lax.stop_gradient
            commitment.append(_distance(vectors, fixed(code), mask, stride))
            codes.append(_distance(fixed(vectors), code, mask, stride))
            seen.append(seen_in(chosen, vectors, mask, rows, c.codebook.size, book))
            passed = ESTIMATORS[c.estimator](vectors, code) if c.projection == "each" else fixed(code)
            made = jnp.repeat(self._after(book, passed), stride, axis=1)
            given = given - made
            total = total + jnp.where(used[:, book, None, None], made, 0)
            first = made if book == 0 else first
            ids.append(side_by_side(chosen, c.stride // stride))
        if c.projection != "each":
            total, first = (ESTIMATORS[c.estimator](start, made) for made in (total, first))
        values, first = (zero_padded(self._back(made), frames.mask) for made in (total, first))
        losses = jnp.stack(commitment, -1), jnp.stack(codes, -1)
        sums = jax.tree.map(lambda *parts: jnp.stack(parts), *seen) if c.counted else None
        return Quantized(values, jnp.concatenate(ids, -1), used, *losses, sums, first)

    def encode(self, frames: Frames, books: int | None = None) -> Codes:
        """Ids of the first `books` books, all of them for None."""
        c = self.config
        c.columns(books)
        found = zip(self._strides[:books], self._choices(frames), strict=False)
        ids = [side_by_side(chosen, c.stride // stride) for stride, (_, chosen) in found]
        return Codes(jnp.concatenate(ids, -1), frames.mask[:, :: c.stride])

    def decode(self, codes: Codes) -> Frames:
        """What ids stand for; those of the first books alone are a coarser version of the same."""
        c, start = self.config, 0
        total: Any = 0.0
        for book, repeats in enumerate(c.repeats):
            if start >= codes.ids.shape[-1]:
                break
            ids = codes.ids[..., start : start + repeats].reshape(codes.ids.shape[0], -1)
            made = self._after(book, self.codebooks.look_up(book, ids))
            total, start = total + jnp.repeat(made, c.stride // repeats, axis=1), start + repeats
        mask = jnp.repeat(codes.mask, c.stride, axis=1)
        return Frames(zero_padded(self._back(total), mask), mask)

    def given_to(self, book: int, frames: Frames) -> Float[Array, "B T D"]:
        """What a book is asked for, after those before it: what k-means starts it from."""
        return next(vectors for place, (vectors, _) in enumerate(self._choices(frames)) if place == book)

    def _choices(self, frames: Frames) -> Iterator[tuple[Float[Array, "B T D"], Int[Array, "B T"]]]:
        """(what it is given, what it chooses) of every book, each given what those before it have left."""
        given = self._into(frames)
        for book, stride in enumerate(self._strides):
            vectors = self._before(book, pooled(given, stride))
            chosen = self.codebooks.choose(book, vectors)
            yield vectors, chosen
            given = given - jnp.repeat(self._after(book, self.codebooks.look_up(book, chosen)), stride, axis=1)

    @property
    def _strides(self) -> tuple[int, ...]:
        """Latents whose mean each book takes."""
        return self.config.strides or (1,) * self.config.books

    def _drawn_books(self, batch: int) -> Bool[Array, "B Q"]:
        """Which books each row uses: all, or with probability `dropout` the first ones."""
        c = self.config
        if not c.dropout:
            return jnp.ones((batch, c.books), bool)
        whether, many = jax.random.split(self.make_rng("dropout"))
        draws, counts = 1 if c.alike else batch, jnp.arange(1, c.books + 1) if c.counts is None else jnp.array(c.counts)
        first = counts[jax.random.randint(many, (draws,), 0, len(counts))]
        count = jnp.where(jax.random.uniform(whether, (draws,)) < c.dropout, first, c.books)
        return jnp.broadcast_to(jnp.arange(c.books) < count[:, None], (batch, c.books))

    def _into(self, frames: Frames) -> Float[Array, "B T D"]:
        stride = self.config.stride
        fits = frames.values.shape[1] % stride == 0
        require(fits, "latents", frames.values.shape[1], f"a multiple of the {stride} latents of a frame of tokens")
        values = zero_padded(frames.values, frames.mask).astype(jnp.float32)
        return self.into(values) if self.config.projection == "around" else values

    def _back(self, values: Float[Array, "B T D"]) -> Float[Array, "B T D2"]:
        return self.back(values) if self.config.projection == "around" else values

    def _before(self, book: int, values: Float[Array, "B T D"]) -> Float[Array, "B T D2"]:
        return self.intos[book](values) if self.config.projection == "each" else values

    def _after(self, book: int, values: Float[Array, "B T D"]) -> Float[Array, "B T D2"]:
        return self.backs[book](values) if self.config.projection == "each" else values


def _map(width: int, bias: bool = True, weight_norm: int | None = None) -> Conv1d:
    return Conv1d(width, 1, use_bias=bias, weight_norm=weight_norm)


def _distance(
    one: Float[Array, "B T D"], other: Float[Array, "B T D"], mask: Bool[Array, "B T"], stride: int
) -> Float[Array, "B T2"]:
    """Mean square of the difference, 0 where masked, for each of the latents that a vector stands for."""
    return jnp.repeat(jnp.where(mask, jnp.square(one - other).mean(-1), 0.0), stride, axis=1)


def pooled(values: Float[Array, "B T D"], stride: int) -> Float[Array, "B T2 D"]:
    """The mean of every `stride` neighbours."""
    if stride == 1:
        return values
    batch, frames, width = values.shape
    return values.reshape(batch, frames // stride, stride, width).mean(2)


def side_by_side(ids: Int[Array, "B T"], count: int) -> Int[Array, "B T2 C"]:
    """Every `count` neighbours in one row."""
    return ids.reshape(ids.shape[0], -1, count)
