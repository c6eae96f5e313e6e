"""A learnt mixture of an encoder's layers (Yang et al. 2021, SUPERB; WavLLM's reading of WavLM)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.encoders.around import AroundEncoderConfig
from slm_jax.encoders.output import EncoderOutput
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.norm import LayerNorm


class WeightedLayersConfig(AroundEncoderConfig):
    """Softmax-weighted sum over what the first layer of `encoder` reads and what each layer gives.

    `norm`: every layer's vectors first get zero mean and unit variance, without weights (s3prl's `normalize`).
    """

    norm: bool = False

    def make(self) -> "WeightedLayers":
        """The module."""
        return WeightedLayers(self)


class WeightedLayers(nn.Module):
    """The encoder (parameters under `encoder`, which are those of `config.encoder.make()`) and `layer_weights`.

    The weights begin equal. The last of the summed states is the last layer's own output, before the final norm of
    encoders that have one, as transformers 5 has it under `use_weighted_layer_sum`.
    """

    config: WeightedLayersConfig

    def setup(self) -> None:
        self.encoder = self.config.encoder.make()
        init = nn.with_logical_partitioning(nn.initializers.zeros, (None,))
        self.layer_weights = self.param("layer_weights", init, (self.config.layers + 1,), jnp.float32)
        self.norm = LayerNorm(use_scale=False, use_bias=False)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """The encoder's output with the mixture as `values`; `layer` k gives that layer of the encoder, unmixed."""
        if layer is not None:
            return self.encoder(samples, mask, layer=layer, collect=collect, deterministic=deterministic)
        out = self.encoder(samples, mask, collect=True, deterministic=deterministic)
        return EncoderOutput(self._mixed(out.hidden), out.mask, out.features, out.hidden if collect else None)

    def _mixed(self, states: Float[Array, "L B T D"]) -> Float[Array, "B T D"]:
        wide = states.astype(at_least_float32(states.dtype))
        wide = self.norm(wide) if self.config.norm else wide
        return jnp.tensordot(jax.nn.softmax(self.layer_weights), wide, axes=1).astype(states.dtype)
