"""What all layers of an encoder give, side by side, for adapters that choose among layers (LTU-AS, WavLLM)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.contracts import EncoderConfig
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput


class LayerStatesConfig(Config):
    """Each layer's output of `encoder` as channels `[B, T, S D]` of S states, from the first layer to the last.

    `pool`: means of so many neighbouring frames (LTU-AS: 20 of 20 ms); the last mean is of what is left. `longest`:
    frames of the encoder that are heard at most, None: all; longer clips are to be refused where `window` is asked for.
    `first`: what the first layer reads is a state too (WavLLM's reading of WavLM). Outputs are those before a final
    norm of the encoder. Parameters lie where the encoder's own do.
    """

    encoder: EncoderConfig
    pool: int = 1
    longest: int | None = None
    first: bool = False

    def __post_init__(self) -> None:
        require(self.pool >= 1, "pool", self.pool, "must be at least 1")
        require(self.longest is None or self.longest >= 1, "longest", self.longest, "must be at least 1, or None")

    def make(self) -> "LayerStates":
        """The module."""
        return LayerStates(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return -(-self._kept(self.encoder.frame_count(n)) // self.pool)

    @property
    def states(self) -> int:
        """How many states stand side by side."""
        return self.encoder.layers + self.first

    @property
    def layers(self) -> int:
        """There are none that could be chosen: all are there."""
        return 0

    @property
    def width(self) -> int:
        """Channels of all states together."""
        return self.states * self.encoder.width

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.pool * self.encoder.hop

    @property
    def window(self) -> int | None:
        """Samples of the longest clip that is heard whole; None: as the encoder alone."""
        return None if self.longest is None else self.longest * self.encoder.hop

    def _kept(self, frames: Any) -> Any:
        return frames if self.longest is None else frames - (frames > self.longest) * (frames - self.longest)


class LayerStates(nn.Module):
    """The encoder, with the states of its layers as channels."""

    config: LayerStatesConfig

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
        """`layer`: 0 is the only one. Raises `UserError` for another."""
        require(layer in (None, 0), "layer", layer, "all layers are there side by side, as layer 0")
        out = self.encoder(samples, mask, collect=True, deterministic=deterministic)
        assert out.hidden is not None  # for the type checker
        real = out.mask[:, : self.config.longest]
        states = out.hidden[0 if self.config.first else 1 :, :, : real.shape[1]]
        values, real = self._means(states, real)
        return EncoderOutput(values, real, values, values[None] if collect else None)

    def _means(
        self, states: Float[Array, "S B T D"], real: Bool[Array, "B T"]
    ) -> tuple[Float[Array, "B M E"], Bool[Array, "B M"]]:
        """Means over the real ones of `pool` frames, all states side by side."""
        pool = self.config.pool
        missing = -states.shape[2] % pool
        weights = jnp.pad(real, ((0, 0), (0, missing))).reshape(len(real), -1, pool)
        states = jnp.where(real[..., None], states, 0)
        states = jnp.pad(states, ((0, 0), (0, 0), (0, missing), (0, 0)))
        sums = states.reshape(*states.shape[:2], -1, pool, states.shape[-1]).sum(3)
        means = sums / jnp.maximum(weights.sum(-1), 1)[..., None].astype(sums.dtype)
        values = jnp.moveaxis(means, 0, 2)
        return values.reshape(*values.shape[:2], -1), weights.any(-1)
