"""Long short-term memory, whole and step by step (Hochreiter and Schmidhuber 1997), equal to `torch.nn.LSTM`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded

Memory = tuple[Float[Array, "L B D"], Float[Array, "L B D"]]
"""What every layer said last, and its cells."""


class LSTM(nn.Module):
    """`layers` of `width` channels, their result added to what came in, then as wide, where `residual`.

    Kernels hold input, forget, cell and output gate side by side; two biases, as PyTorch has them.
    """

    width: int
    layers: int = 1
    residual: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    stride = 1
    latency = 0
    receptive_field = None

    def __call__(self, frames: Frames) -> Frames:
        return self.step(frames, self.initial_state(frames.values.shape[0]))[0]

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Memory:
        """Zeros. `capacity` is not needed: the state does not grow."""
        shape, dtype = (self.layers, batch, self.width), dtype or self.dtype
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)  # two, since a state may be donated

    @nn.compact
    def step(self, frames: Frames, state: Memory) -> tuple[Frames, Memory]:
        """The next frames, any number of them; what is not real changes nothing."""
        x, said, cells = zero_padded(frames.values, frames.mask).astype(self.dtype), [], []
        for layer in range(self.layers):
            wide = {"kernel_in": x.shape[-1], "kernel_back": self.width}
            into, back = (self._drawn(f"{name}_{layer}", (inputs,)) for name, inputs in wide.items())
            biases = [self._drawn(f"{name}_{layer}", ()) for name in ("bias_in", "bias_back")]
            gates = x @ into + (biases[0] + biases[1])
            x, last = _run(gates, back, frames.mask, (state[0][layer], state[1][layer]))
            said.append(last[0])
            cells.append(last[1])
        values = zero_padded(x + frames.values if self.residual else x, frames.mask)
        return Frames(values, frames.mask), (jnp.stack(said), jnp.stack(cells))

    def _drawn(self, name: str, inputs: tuple[int, ...]) -> jax.Array:
        """A parameter of all four gates, from PyTorch's interval around zero."""

        def spread(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / self.width**0.5

        names = ("conv_in", "conv_out") if inputs else ("conv_out",)
        init = nn.with_logical_partitioning(spread, names)
        return self.param(name, init, (*inputs, 4 * self.width), self.param_dtype).astype(self.dtype)

    def reset(self, state: Memory, rows: Bool[Array, "B"]) -> Memory:
        """The state with `rows` back at the beginning."""
        said, cells = (jnp.where(rows[:, None], 0, part) for part in state)
        return said, cells


def _run(
    gates: Float[Array, "B T G"],
    back: Float[Array, "D G"],
    mask: Bool[Array, "B T"],
    state: tuple[Float[Array, "B D"], Float[Array, "B D"]],
) -> tuple[Float[Array, "B T D"], tuple[jax.Array, jax.Array]]:
    """One layer over time: what it says, and its last state."""

    def one(state: tuple[jax.Array, jax.Array], frame: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        (said, cell), (given, real) = state, frame
        entry, keep, new, out = jnp.split(given + said @ back, 4, axis=-1)
        after = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(entry) * jnp.tanh(new)
        spoken = jax.nn.sigmoid(out) * jnp.tanh(after)
        chosen = jnp.where(real[:, None], spoken, said), jnp.where(real[:, None], after, cell)
        return chosen, chosen[0]

    state = jax.tree.map(lambda part: part.astype(gates.dtype), state)
    last, said = jax.lax.scan(one, state, (gates.swapaxes(0, 1), mask.swapaxes(0, 1)))
    return said.swapaxes(0, 1), last
