"""Continuous integrate-and-fire as an adapter: one vector for each token (Dong and Xu 2020, arXiv 1905.11235).

Wav2Prompt (2024) puts it in front of a language model, where each vector stands for a word. Its weights learn how many
tokens there are from `objectives.cif.quantity`.
"""

import math
from fractions import Fraction
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.adapters.linear import output_map
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.token_compression.cif import TAILS, fired


class CIFConfig(Config):
    """A weight for each frame from a convolution over `kernel` of them, and a map of what fires to `width`.

    `keep`: at most this share of the real frames, rounded up, become tokens; the weights of a row that asks for more
    are scaled to that. `start`: the weight of every frame at first. `tail` as in `token_compression.cif`.
    """

    width: int
    kernel: int = 3
    keep: float = 0.5
    start: float = 0.2
    tail: str = "round"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("width", "kernel"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(0.001 <= self.keep <= 1, "keep", self.keep, "a share from 0.001 to 1")
        require(0 < self.start < 1, "start", self.start, "a weight between 0 and 1")
        require(self.tail in TAILS, "tail", self.tail, f"must be one of {', '.join(TAILS)}")
        compute_dtype(self.dtype)

    def frames_out(self, frames: int) -> int:
        """How many tokens come out of so many real frames, at most."""
        share = Fraction(self.keep).limit_denominator(1000)
        return -(-frames * share.numerator // share.denominator)

    def make(self) -> "CIF":
        """The module."""
        return CIF(self)


class CIF(nn.Module):
    """Frames [B, T, D] to [B, frames_out(T), width]; sub-modules `conv`, `weigh`, `map`."""

    config: CIFConfig

    def setup(self) -> None:
        c, dtype = self.config, compute_dtype(self.config.dtype)
        start = nn.initializers.constant(math.log(c.start / (1 - c.start)))
        self.weigh = Linear(1, in_names=("conv_out",), bias_init=start, kernel_init=nn.initializers.normal(0.02))
        self.map = output_map(c.width, dtype)

    @nn.compact
    def weights(self, frames: Frames) -> Float[Array, "B T"]:
        """The weight of each frame in (0, 1), float32, 0 where it is not real: what `quantity` counts."""
        values = zero_padded(frames.values, frames.mask).astype(jnp.float32)
        x = jax.nn.relu(Conv1d(values.shape[-1], self.config.kernel, name="conv")(values, frames.mask))
        return jnp.where(frames.mask, jax.nn.sigmoid(self.weigh(x)[..., 0]), 0.0)

    def __call__(
        self,
        frames: Frames,
        context: Any = None,
        *,
        targets: Int[Array, "B"] | None = None,
        deterministic: bool = True,
    ) -> Frames:
        """`targets`: how many tokens each row is to give (training), at most its limit; None: what it weighs.

        `context` is not looked at: this adapter is not conditioned.
        """
        length = frames.mask.shape[1]
        most = self.config.frames_out(length)
        bounds = np.asarray([self.config.frames_out(n) for n in range(length + 1)])
        limits = jnp.asarray(bounds)[frames.mask.sum(-1)]
        made = fired(self.weights(frames), frames.mask, limits, most, self.config.tail, targets)
        values = jnp.einsum("btm,btd->bmd", made.shares, zero_padded(frames.values, frames.mask).astype(jnp.float32))
        return Frames(self.map(values), jnp.arange(most) < made.counts[:, None])
