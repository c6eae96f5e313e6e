"""The head of connectionist temporal classification: labels of each frame."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import LayerNorm

REACH = 5
"""Frames that the convolution of a head looks at."""


class CTCHead(nn.Module):
    """Frames `[B, T, D]` to scores `[B, T, V]`: a linear map, with `hidden` behind a norm and a convolution.

    A linear map is all that an encoder needs which learns beside it. A frozen one may say a letter over several frames:
    on Whisper's a head with 256 hidden channels has .014 of the letters wrong after 300 steps (`experiments/adapters`).
    Frames where `mask` is False are read as zeros then.
    """

    classes: int
    hidden: int = 0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.hidden:
            self.norm = LayerNorm(dtype=self.dtype)
            self.context = Conv1d(self.hidden, REACH, dtype=self.dtype)
        # quiet, as PyTorch draws it: louder scores begin on paths that take long to leave
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.map = Linear(self.classes, ("embed",), ("vocab",), kernel_init=init, dtype=self.dtype)
        nn.share_scope(self, self.map)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T V"]:
        if self.hidden:
            x = activation("gelu")(self.context(self.norm(x), mask))
        return self.map(x)


class CTCHeadConfig(Config):
    """A head over `classes` labels, one of them the blank, of frames of `width` channels; a part of its own.

    `hidden`: channels of the convolution in front of the linear map; 0 has none.
    """

    width: int
    classes: int
    hidden: int = 0

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "at least one label and the blank")
        require(self.hidden >= 0, "hidden", self.hidden, "channels of the convolution, or 0 for none")

    def make(self, dtype: str = "float32", name: str | None = None) -> CTCHead:
        """The module."""
        return CTCHead(self.classes, self.hidden, compute_dtype(dtype), name=name)
