"""Codebooks: a stack of tables of code vectors, looked up, and moved by averages of what chose them or by gradients.

Source: van den Oord et al. 2017 (averages: appendix A.1); Zeghidour et al. 2021, section III-C (codes that nobody
chooses begin anew); lookups of directions in few channels as Yu et al. 2022.
"""

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.quantizers.nearest import nearest

Learning = Literal["averages", "gradient"]
COLLECTION = "codebooks"
"""Where codebooks that averages move are kept: `entries`, how much each is used, and the sums behind them."""
SHARPNESS = 60.0
"""Of the lottery among the vectors of a batch: so steep that of a dozen the winner is their weighted mean."""


class CodebookConfig(Config):
    """`size` vectors of `width` channels.

    `learning`: "averages" (exponential, `decay`, counts smoothed by `epsilon`) or "gradient". `normalised`: what is
    compared are directions. `revive`: a code that is used less than this share of the mean takes a vector of the batch
    (averages only; 0: never).
    """

    size: int = 1024
    width: int = 128
    learning: Learning = "averages"
    normalised: bool = False
    decay: float = 0.99
    epsilon: float = 1e-5
    revive: float = 0.1

    def __post_init__(self) -> None:
        require(self.size > 1, "size", self.size, "two codes or more")
        require(self.width > 0, "width", self.width, "must be positive")
        require(0 <= self.decay < 1, "decay", self.decay, "must be in [0, 1)")
        require(0 <= self.revive < 1, "revive", self.revive, "must be in [0, 1)")

    @property
    def counted(self) -> bool:
        """Whether averages move it."""
        return self.learning == "averages"


class Seen(NamedTuple):
    """What one (micro-)batch says of Q codebooks, all of it sums, so that batches may be cut in any way.

    `counts`, `sums`: how often each code was chosen, and the vectors that chose it. `drawn` and `weights`: one vector
    of the batch for each code, drawn by a lottery that depends on the rows alone, times its weight, and the weights.
    """

    counts: Float[Array, "Q K"]
    sums: Float[Array, "Q K D"]
    drawn: Float[Array, "Q K D"]
    weights: Float[Array, "Q K"]


class Codebooks(nn.Module):
    """`books` tables of one shape: `entries [Q, K, D]`."""

    config: CodebookConfig
    books: int

    def setup(self) -> None:
        c = self.config
        shape, spread = (self.books, c.size, c.width), nn.initializers.normal(1.0)
        if not c.counted:
            names = (None, None, "conv_out")
            self.entries = self.param("entries", nn.with_logical_partitioning(spread, names), shape, jnp.float32)
            return
        made = self.variable(COLLECTION, "entries", lambda: spread(self.make_rng("params"), shape, jnp.float32))
        self.variable(COLLECTION, "usage", lambda: jnp.ones(shape[:2], jnp.float32))
        self.variable(COLLECTION, "sums", lambda: made.value)
        self.entries = made.value

    def choose(self, book: int, vectors: Float[Array, "*S D"]) -> Int[Array, "*S"]:
        """The code nearest to each vector in a book; ties to the lowest index."""
        entries = self.entries[book]
        if self.config.normalised:
            vectors, entries = directions(vectors), directions(entries)
        return nearest(vectors, entries)[0]

    def look_up(self, book: int, ids: Int[Array, "*S"]) -> Float[Array, "*S D"]:
        """The vectors of codes."""
        return jnp.take(self.entries[book], ids, axis=0)


def directions(vectors: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """Vectors of length 1."""
    vectors = vectors.astype(jnp.float32)
    return vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def seen_in(
    ids: Int[Array, "B T"],
    vectors: Float[Array, "B T D"],
    mask: Bool[Array, "B T"],
    rows: Int[Array, "B"],
    size: int,
    book: int,
) -> Seen:
    """What the real frames of a batch say of one book, without the axis Q; `rows` tells the rows of a batch apart."""
    vectors = jax.lax.stop_gradient(vectors.astype(jnp.float32)).reshape(-1, vectors.shape[-1])
    real = mask.reshape(-1).astype(jnp.float32)
    slot, weight = lottery(rows, ids.shape[1], size, book)
    sums, counts = summed(vectors, real, ids.reshape(-1), size)
    drawn, weights = summed(vectors, real * weight.reshape(-1), slot.reshape(-1), size)
    return Seen(counts, sums, drawn, weights)


def summed(
    vectors: Float[Array, "S D"], weights: Float[Array, "S"], ids: Int[Array, "S"], size: int
) -> tuple[Float[Array, "K D"], Float[Array, "K"]]:
    """Weighted sums of the vectors with each id, and sums of the weights: by scattering on a CPU, else by products."""
    if jax.default_backend() == "cpu":
        add = lambda values: jax.ops.segment_sum(values, ids, num_segments=size)  # noqa: E731
        return add(vectors * weights[:, None]), add(weights)
    chosen = jax.nn.one_hot(ids, size, dtype=jnp.float32) * weights[:, None]
    return jnp.einsum("sk,sd->kd", chosen, vectors, precision=jax.lax.Precision.HIGHEST), chosen.sum(0)


def lottery(rows: Int[Array, "B"], frames: int, size: int, book: int) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
    """A code for every frame of a batch, and a weight that all but the luckiest frame of a code lose against.

    Both follow from the row's number, the frame and the book alone: sums over parts of a batch do not depend on how it
    was cut.
    """
    place = jnp.arange(frames, dtype=jnp.uint32) + jnp.uint32(book) * jnp.uint32(0x9E3779B9)
    drawn = _mixed(_mixed(rows.astype(jnp.uint32))[:, None] ^ _mixed(place))
    luck = _mixed(drawn ^ jnp.uint32(0x5BD1E995)).astype(jnp.float32) / 2.0**32
    return (drawn % jnp.uint32(size)).astype(jnp.int32), jnp.exp(SHARPNESS * (luck - 1.0))


def _mixed(numbers: jax.Array) -> jax.Array:
    """A hash of 32 bits (the finalizer of MurmurHash3)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = (numbers ^ (numbers >> shift)) * jnp.uint32(factor)
    return numbers ^ (numbers >> 16)


def moved(config: CodebookConfig, books: dict[str, Any], seen: Seen) -> dict[str, Any]:
    """The codebooks after a step: averages go on, entries follow them, codes that hardly anybody uses begin anew."""
    usage = config.decay * books["usage"] + (1 - config.decay) * seen.counts
    sums = config.decay * books["sums"] + (1 - config.decay) * seen.sums
    entries = sums / smoothed_counts(usage, config.epsilon)[..., None]
    mean = usage.mean(-1, keepdims=True)
    anew = (usage < config.revive * mean) & (seen.weights > 0)
    fresh = seen.drawn / jnp.where(seen.weights > 0, seen.weights, 1.0)[..., None]
    usage = jnp.where(anew, mean, usage)
    entries = jnp.where(anew[..., None], fresh, entries)
    return {"entries": entries, "usage": usage, "sums": jnp.where(anew[..., None], fresh * mean[..., None], sums)}


def smoothed_counts(usage: Float[Array, "*Q K"], epsilon: float) -> Float[Array, "*Q K"]:
    """Counts with `epsilon` added to each and their sum left as it is."""
    total = usage.sum(-1, keepdims=True)
    return (usage + epsilon) / (total + usage.shape[-1] * epsilon) * total
