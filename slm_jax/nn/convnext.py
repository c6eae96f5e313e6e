"""ConvNeXt blocks over time: whole, and causal ones that also run step by step (Liu et al. 2022; Siuzdak 2023)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.types import Frames
from slm_jax.nn.conv import Conv1d
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import ACTIVATIONS
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.streaming_conv import CausalConv1d


class _Block(nn.Module):
    """Norm, two dense layers, a learnt scale, beside what came in: what follows the convolution of each channel."""

    width: int
    hidden: int
    kernel: int = 7
    initial_scale: float = 0.3
    activation: str = "gelu"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.norm = LayerNorm(dtype=self.dtype)
        self.expand = Linear(self.hidden, ("conv_in",), ("mlp",), dtype=self.dtype)
        self.contract = Linear(self.width, ("mlp",), ("conv_out",), dtype=self.dtype)
        init = nn.with_logical_partitioning(nn.initializers.constant(self.initial_scale), ("norm",))
        self.scale = self.param("scale", init, (self.width,), jnp.float32)

    def beside(self, x: Float[Array, "B T D"], mixed: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What came in and what is made of it once neighbours are mixed."""
        made = self.contract(ACTIVATIONS[self.activation](self.expand(self.norm(mixed))))
        return x + made * self.scale.astype(self.dtype)


class ConvNeXt(_Block):
    """Looks as far ahead as back."""

    def setup(self) -> None:
        super().setup()
        self.depthwise = Conv1d(self.width, self.kernel, groups=self.width, form="unfold", dtype=self.dtype)

    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        return self.beside(x, self.depthwise(x, mask))


class CausalConvNeXt(_Block):
    """Never looks ahead."""

    stride = 1
    latency = 0

    def setup(self) -> None:
        super().setup()
        depthwise = {"groups": self.width, "form": "unfold", "dtype": self.dtype}
        self.depthwise = CausalConv1d(self.width, self.width, self.kernel, **depthwise)

    @property
    def receptive_field(self) -> int:
        """Frames that can reach one."""
        return self.kernel

    def __call__(self, frames: Frames) -> Frames:
        return Frames(self.beside(frames.values, self.depthwise(frames).values), frames.mask)

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Any:
        """That of the convolution."""
        return self.depthwise.initial_state(batch, capacity, dtype)

    def step(self, frames: Frames, state: Any) -> tuple[Frames, Any]:
        """The next frames."""
        mixed, state = self.depthwise.step(frames, state)
        return Frames(self.beside(frames.values, mixed.values), frames.mask), state

    def reset(self, state: Any, rows: Bool[Array, "B"]) -> Any:
        """The state with `rows` back at the beginning."""
        return self.depthwise.reset(state, rows)
