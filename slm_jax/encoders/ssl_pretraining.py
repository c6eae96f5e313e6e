"""An encoder with the head that pre-training needs: scores of clusters for every frame (Hsu et al. 2021)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput
from slm_jax.encoders.ssl import SSLEncoder, SSLEncoderConfig
from slm_jax.nn.linear import Linear, logits_float32

COSINE_FLOOR = 1e-8


class HubertPretrainingConfig(Config):
    """An encoder with a head over `classes` clusters.

    `head`: "linear" (softmax over a linear map, converges fast in small runs) or "cosine" (HuBERT's: cosine between
    a projection to `head_width` and a learnt embedding of each class, divided by `temperature`).
    """

    encoder: SSLEncoderConfig = SSLEncoderConfig()
    classes: int = 100
    head: str = "cosine"
    head_width: int = 256
    temperature: float = 0.1

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "must be at least 2")
        require(self.head in ("linear", "cosine"), "head", self.head, "must be 'linear' or 'cosine'")
        require(self.temperature > 0, "temperature", self.temperature, "must be positive")

    def make(self) -> "HubertPretraining":
        """The module."""
        return HubertPretraining(self)


class HubertPretraining(nn.Module):
    """Encoder (parameters under `encoder`, which are those of `config.encoder.make()`) and head."""

    config: HubertPretrainingConfig

    @nn.compact
    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        span_mask: Bool[Array, "B T"] | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T V"], EncoderOutput]:
        """Float32 class scores of every frame, and what the encoder gave."""
        encoder = SSLEncoder(self.config.encoder, name="encoder")
        out = encoder(samples, mask, span_mask, deterministic=deterministic)
        head = self._cosine if self.config.head == "cosine" else self._linear
        return head(out.values), out

    def _linear(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        scores = Linear(self.config.classes, ("embed",), ("codebook",), dtype=x.dtype, name="classifier")(x)
        return scores.astype(jnp.float32)

    def _cosine(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        c = self.config
        projected = Linear(c.head_width, ("embed",), (None,), dtype=x.dtype, name="final_projection")(x)
        init = nn.with_logical_partitioning(nn.initializers.uniform(1.0), ("codebook", None))
        classes = self.param("class_embedding", init, (c.classes, c.head_width), jnp.float32)
        return logits_float32(_unit(projected), _unit(classes).T) / c.temperature


def _unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Vectors of length 1, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), COSINE_FLOOR**2))
