"""Several layers of an encoder side by side, for adapters that look at each of them (LTU-AS, WavLLM, DeSTA)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.contracts import EncoderConfig
from slm_jax.core.errors import require
from slm_jax.encoders.around import AroundEncoderConfig
from slm_jax.encoders.output import EncoderOutput


class LayersConfig(Config):
    """Which layers of an encoder, in what form.

    `chosen`: k is what layer k gives, 0 what the first one reads; None: what every layer gives, and with `first` what
    the first one reads in front of that (WavLLM's reading of WavLM). `final_norm`: the last layer counts as what comes
    behind the encoder's final norm, as in the tuple of hidden states of transformers, which DeSTA2 takes its layers
    from; else it is what the layer itself gives. `pool`: means of so many neighbouring frames (LTU-AS: 20 of 20 ms);
    the last mean is of what is left. `longest`: frames of the encoder that are heard at most, None: all; longer clips
    are to be refused where `window` is asked for.
    """

    chosen: tuple[int, ...] | None = None
    first: bool = False
    final_norm: bool = False
    pool: int = 1
    longest: int | None = None

    def __post_init__(self) -> None:
        require(self.chosen is None or len(self.chosen) > 0, "chosen", self.chosen, "at least one layer")
        require(self.chosen is None or not self.first, "first", self.first, "chosen layers say it themselves: 0")
        require(self.pool >= 1, "pool", self.pool, "must be at least 1")
        require(self.longest is None or self.longest >= 1, "longest", self.longest, "must be at least 1, or None")

    def of(self, encoder: EncoderConfig) -> "LayerStatesConfig":
        """These layers of `encoder`; raises `UserError` where it has not so many."""
        how = {name: getattr(self, name) for name in ("chosen", "first", "final_norm", "pool", "longest")}
        return LayerStatesConfig(encoder=encoder, **how)  # type: ignore[arg-type]


class LayerStatesConfig(LayersConfig, AroundEncoderConfig):
    """The same of `encoder`, S states as channels `[B, T, S D]`. Parameters lie where the encoder's own do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        last = self.encoder.layers
        inside = all(0 <= layer <= last for layer in self.chosen or ())
        require(inside, "chosen", self.chosen, f"layers 0 to {last}: 0 is what the first of them reads")

    def make(self) -> "LayerStates":
        """The module."""
        return LayerStates(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return -(-self._kept(self.encoder.frame_count(n)) // self.pool)

    @property
    def places(self) -> tuple[int, ...]:
        """The layers whose states stand side by side."""
        return tuple(range(0 if self.first else 1, self.encoder.layers + 1)) if self.chosen is None else self.chosen

    @property
    def states(self) -> int:
        """How many states stand side by side."""
        return len(self.places)

    @property
    def layers(self) -> int:
        """There are none that could be chosen again."""
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
        require(layer in (None, 0), "layer", layer, "the chosen layers are one, layer 0")
        out = self.encoder(samples, mask, collect=True, deterministic=deterministic)
        real = out.mask[:, : self.config.longest]
        values, real = self._means(self._states(out)[:, :, : real.shape[1]], real)
        return EncoderOutput(values, real, values, values[None] if collect else None)

    def _states(self, out: EncoderOutput) -> Float[Array, "S B T D"]:
        """The chosen layers, the last one behind the final norm where that is wanted."""
        c = self.config
        assert out.hidden is not None  # for the type checker: they were collected
        behind_norm = c.encoder.layers if c.final_norm else None
        return jnp.stack([out.values if layer == behind_norm else out.hidden[layer] for layer in c.places])

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
