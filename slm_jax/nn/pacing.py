"""How much of a context an entry may look at where the context arrives over time: a read/write policy as a rule.

Wait-k (Ma et al. 2019, arXiv 1810.08398) reads k chunks, then writes one id for each chunk that it reads; a fixed chunk
reads one and writes a few ids. Both are one rule, so that whole rows (training) and steps (decoding) see the same.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import pytree_dataclass, static
from slm_jax.nn.caches import Appended, ContextCache, context_cache


class PaceConfig(Config):
    """`wait` chunks of `chunk` frames are read before the first id is written, then one for every `tokens` ids."""

    chunk: int
    wait: int = 1
    tokens: int = 1

    def __post_init__(self) -> None:
        for name in ("chunk", "wait", "tokens"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")

    def chunks(self, written: Any) -> Any:
        """Chunks read when so many ids (an integer or an array) are written and the next one is asked for."""
        return self.wait + written // self.tokens

    def frames(self, written: Any) -> Any:
        """Frames of these chunks."""
        return self.chunk * self.chunks(written)


def wait_k(k: int, chunk: int) -> PaceConfig:
    """`k` chunks ahead, one id for each chunk after that."""
    return PaceConfig(chunk=chunk, wait=k)


def fixed_chunk(chunk: int, tokens: int) -> PaceConfig:
    """`tokens` ids after every chunk."""
    return PaceConfig(chunk=chunk, tokens=tokens)


@pytree_dataclass
class PartlySeen:
    """A context of which each entry of a sequence sees frames of its own: where `mask` holds."""

    values: Float[Array, "B S D"]
    mask: Bool[Array, "B T S"]


def frames_read(written: Int[Array, "B T"], paces: Sequence[PaceConfig | None], drawn: Int[Array, "B"]) -> Array:
    """Frames `[B, T]` that entries see which stand behind so many `written` ids: each row at the pace that was `drawn`
    for it, a place in `paces`; None reads all."""
    everything = jnp.full(written.shape, jnp.iinfo(jnp.int32).max, jnp.int32)
    counts = jnp.stack([everything if pace is None else pace.frames(written) for pace in paces])
    return counts[drawn, jnp.arange(len(written))]


@pytree_dataclass
class PacedCache(ContextCache):
    """A `ContextCache` whose entries see as much as `pace` has read: `written` ids of each row, -1 before its prompt.

    All entries of the first append are the prompt: nothing is written yet. It has a row for each row of the sequence
    (beams would write at paces of their own).
    """

    written: Int[Array, "B"]
    pace: PaceConfig = static()

    def append(self, keys: Any, values: Any, real: Bool[Array, "B T"]) -> Appended:
        """The context as it is, and what each of the new entries sees of it."""
        new, begun = jnp.cumsum(real, axis=1, dtype=jnp.int32), self.written[:, None] >= 0
        said = jnp.where(begun, self.written[:, None] + new, 0)
        after = jnp.where(real.any(1), said[:, -1] if real.shape[1] else self.written, self.written)
        read = jnp.arange(self.mask.shape[1]) < self.pace.frames(said)[..., None]
        cache = PacedCache(self.keys, self.values, self.mask, after, self.pace)
        return Appended(cache, self.keys, self.values, self.mask[:, None] & read)

    def filled(self, keys: Any, values: Any, mask: Any) -> "PacedCache":
        """With another context, of rows that are as far as before."""
        made = context_cache(keys, values, mask, self.keys.dtype)
        return PacedCache(made.keys, made.values, made.mask, self.written, self.pace)

    def reset(self, rows: Bool[Array, "B"]) -> "PacedCache":
        """With the rows where `rows` holds without a context and before their prompt."""
        written = jnp.where(rows, -1, self.written)
        return PacedCache(self.keys, self.values, self.mask & ~rows[:, None], written, self.pace)
