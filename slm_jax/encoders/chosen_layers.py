"""Several layers of an encoder side by side, channel by channel, for adapters that look at each of them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.contracts import EncoderConfig
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput


class LayersConfig(Config):
    """Which layers of an encoder: k is what layer k gives, 0 what the first one reads.

    `final_norm`: the last layer counts as what comes behind the encoder's final norm, as in the tuple of hidden states
    of transformers, which DeSTA2 takes its layers from; else it is what the layer itself gives, as in DeSTA2.5.
    """

    chosen: tuple[int, ...]
    final_norm: bool = False

    def of(self, encoder: EncoderConfig) -> "ChosenLayersConfig":
        """These layers of `encoder`; raises `UserError` where it has not so many."""
        return ChosenLayersConfig(encoder=encoder, chosen=self.chosen, final_norm=self.final_norm)


class ChosenLayersConfig(LayersConfig):
    """The same of `encoder`."""

    encoder: EncoderConfig

    def __post_init__(self) -> None:
        require(len(self.chosen) >= 1, "chosen", self.chosen, "at least one layer")
        last = self.encoder.layers
        inside = all(0 <= layer <= last for layer in self.chosen)
        require(inside, "chosen", self.chosen, f"layers 0 to {last}: 0 is what the first of them reads")

    def make(self) -> "ChosenLayers":
        """The module."""
        return ChosenLayers(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return self.encoder.frame_count(n)

    @property
    def layers(self) -> int:
        """There are none that could be chosen again."""
        return 0

    @property
    def width(self) -> int:
        """Channels of all chosen layers together."""
        return len(self.chosen) * self.encoder.width

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.encoder.hop


class ChosenLayers(nn.Module):
    """Samples [B, N] to [B, T, L E]. Its parameters are those of `config.encoder.make()`, under the same paths."""

    config: ChosenLayersConfig

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
        out, c = self.encoder(samples, mask, collect=True, deterministic=deterministic), self.config
        behind_norm = c.encoder.layers if c.final_norm else None
        taken = [out.values if layer == behind_norm else out.hidden[layer] for layer in c.chosen]
        values = jnp.concatenate(taken, axis=-1)
        return EncoderOutput(values, out.mask, out.features, values[None] if collect else None)
