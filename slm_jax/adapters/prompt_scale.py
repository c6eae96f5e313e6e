"""How much LoRA counts, output by output, by what is asked (WavLLM's prompt adapter, arXiv 2404.00656).

It reads what the language model makes of the bare instruction without LoRA. What comes out goes to `nn.lora` as the
rows' factors; with `alpha` equal to `rank` nothing else scales the update.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import activation


class PromptScaleConfig(Config):
    """Two maps over each word (`hidden` channels between them), their mean weighed by attention, kept within 0..`most`.

    `start`: what the factors are about before anything is learnt; the biases begin there. The release does not say how
    it began; with 0 half of the factors would be cut to nothing, and LoRA with them.
    """

    width: int
    hidden: int = 1024
    most: float = 3.0
    start: float = 1.0
    paired: str | None = None
    heads: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.heads >= 1, "heads", self.heads, "must be at least 1")
        require(0 <= self.start <= self.most, "start", self.start, f"must be in 0..{self.most}")
        require(
            self.paired is None or self.width % (2 * self.heads) == 0,
            "heads",
            self.heads,
            f"twice as many must divide {self.width}",
        )
        compute_dtype(self.dtype)

    def of(self, adapter: str, factors: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """The factors as the outputs of an adapter lie."""
        if adapter != self.paired:
            return factors
        pairs = factors.reshape(len(factors), self.heads, -1, 2)
        return jnp.swapaxes(pairs, 2, 3).reshape(factors.shape)

    def make(self) -> "PromptScale":
        """The module."""
        return PromptScale(self)


class PromptScale(nn.Module):
    """Words [B, P, D] to factors [B, D]; sub-modules `down`, `up`, `attention`. A row without words gets zeros."""

    config: PromptScaleConfig

    @nn.compact
    def __call__(self, words: Frames) -> Float[Array, "B D"]:
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = zero_padded(words.values, words.mask).astype(dtype)
        hidden = activation("gelu")(Linear(c.hidden, ("embed",), ("mlp",), dtype=dtype, name="down")(x))
        begins = nn.initializers.constant(c.start)
        s = Linear(c.width, ("mlp",), ("embed",), bias_init=begins, dtype=dtype, name="up")(hidden)
        scores = Linear(1, ("embed",), (None,), dtype=dtype, name="attention")(s)[..., 0]
        mean = jnp.einsum("bp,bpd->bd", _shares(scores, words.mask), s.astype(jnp.float32))
        return jnp.clip(mean, 0.0, c.most)


def _shares(scores: jax.Array, mask: Any) -> Float[Array, "B P"]:
    """The softmax over real entries; of none all are 0."""
    scores = jnp.where(mask, scores.astype(jnp.float32), -jnp.inf)
    raised = jnp.where(mask, jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True, initial=-1e30)), 0.0)
    return raised / jnp.maximum(raised.sum(-1, keepdims=True), 1e-30)
