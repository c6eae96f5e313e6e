"""An encoder that sees whole windows, as one that hears a clip chunk by chunk.

Each chunk is encoded anew with what came before it, and only its own frames are kept. What is heard later changes
nothing, so that a stream equals the whole.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.rates import mask_of
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.encoders.around import AroundEncoderConfig
from slm_jax.encoders.output import EncoderOutput
from slm_jax.nn.streaming_conv import rows_from


class RollingEncoderConfig(AroundEncoderConfig):
    """`encoder` over chunks of `chunk` samples with up to `before` samples in front of each; its parameters are ours.

    It takes (before + chunk) / chunk times as much as the encoder alone. Frames must stand one behind the other, one
    for each `hop` of samples (Whisper's with `trim`, Conformers).
    """

    chunk: int
    before: int = 0

    def __post_init__(self) -> None:
        for name, least in (("chunk", 1), ("before", 0)):
            value = getattr(self, name)
            rule = f"a multiple of the {self.hop} samples of a frame, at least {least}"
            require(value >= least and value % self.hop == 0, name, value, rule)
        count, wanted = self.encoder.frame_count(self.reach), self.reach // self.hop
        require(count == wanted, "encoder", type(self.encoder).__name__, f"gives {count} frames of {wanted} hops")

    def make(self) -> "RollingEncoder":
        """The module."""
        return RollingEncoder(self)

    @property
    def reach(self) -> int:
        """Samples that are encoded at once."""
        return self.before + self.chunk

    @property
    def frames(self) -> int:
        """Frames of a chunk."""
        return self.chunk // self.hop

    def ahead(self, chunk: int) -> int:
        """Frames in front of the own ones of chunk number `chunk` (from 0)."""
        return min(self.before, chunk * self.chunk) // self.hop

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        full, rest = n // self.chunk, n % self.chunk
        behind = self.encoder.frame_count(self.before + rest) - self.before // self.hop
        return full * self.frames + (rest > 0) * behind

    @property
    def streams(self) -> bool:
        """It runs chunk by chunk."""
        return True

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk."""
        return self.chunk


class RollingEncoder(nn.Module):
    """Right-padded clips of any length to the frames of their chunks, joined; parameters are the encoder's."""

    config: RollingEncoderConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()
        nn.share_scope(self, self.encoder)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """As the encoder alone for clips of one chunk."""
        c, mask = self.config, jnp.ones(samples.shape, bool) if mask is None else mask
        count, batch = -(-samples.shape[1] // c.chunk), len(samples)
        pieces, real = (self._pieces(x, count).reshape(batch * count, -1) for x in (samples, mask))
        out = self.encoder(pieces, real, layer=layer, collect=collect, deterministic=deterministic)
        total = c.frame_count(samples.shape[1])

        def own(x: Array) -> Array:
            """`[B W, T, ...]`: the frames of each chunk itself, one chunk behind the other."""
            by_chunk = x.reshape(batch, count, *x.shape[1:])
            kept = [by_chunk[:, i, c.ahead(i) : c.ahead(i) + c.frames] for i in range(count)]
            return jnp.concatenate(kept, axis=1)[:, :total]

        hidden = None if out.hidden is None else jnp.stack([own(x) for x in out.hidden])
        return EncoderOutput(own(out.values), own(out.mask), own(out.features), hidden)

    def _pieces(self, x: Array, count: int) -> Array:
        """`[B, N]` as `[B, W, reach]`: each chunk behind what came before it, zeros after its end."""
        c = self.config
        ends = [(i + 1) * c.chunk for i in range(count)]
        x = jnp.pad(x, ((0, 0), (0, ends[-1] - x.shape[1])))
        cut = [x[:, max(0, end - c.reach) : end] for end in ends]
        return jnp.stack([jnp.pad(one, ((0, 0), (0, c.reach - one.shape[1]))) for one in cut], axis=1)

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple[Array, Array]:
        """The last samples before the next chunk, and how many of them there are."""
        return jnp.zeros((batch, self.config.before), dtype or jnp.float32), jnp.zeros((batch,), jnp.int32)

    def step(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"], state: tuple[Array, Array]
    ) -> tuple[Frames, tuple[Array, Array]]:
        """The next chunk: its frames, and the state. A row gives all of it, nothing, or ends within it.

        Raises `UserError` for samples that are no chunk.
        """
        c, (last, have) = self.config, state
        require(samples.shape[1] == c.chunk, "samples of a step", samples.shape[1], f"must be a chunk of {c.chunk}")
        count = mask.sum(-1, dtype=jnp.int32)
        joined = jnp.concatenate([last, jnp.where(mask, samples, 0.0)], axis=1)[..., None]
        piece = rows_from(jnp.pad(joined, ((0, 0), (0, c.before), (0, 0))), c.before - have, c.reach)[..., 0]
        out = self.encoder(piece, mask_of(jnp.where(count > 0, have + count, 0), c.reach))
        ahead = have // c.hop
        frames = rows_from(jnp.pad(out.values, ((0, 0), (0, c.frames), (0, 0))), ahead, c.frames)
        real = mask_of(jnp.maximum(out.mask.sum(-1) - ahead, 0), c.frames)
        kept = rows_from(joined, count, c.before)[..., 0]
        return Frames(frames, real), (kept, jnp.minimum(have + count, c.before))

    def reset(self, state: tuple[Array, Array], rows: Bool[Array, "B"]) -> tuple[Array, Array]:
        """The state with `rows` as new."""
        return jnp.where(rows[:, None], 0, state[0]), jnp.where(rows, 0, state[1])
