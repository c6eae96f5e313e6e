"""Causal convolutions that run whole and step by step with the same result (`core.contracts.Steppable`).

The state of a row moves on by the frames its mask calls real, so rows of a batch may stop and resume on their own.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import conv_length, kernel_and_bias, length_mask, pad_widths, zero_padded
from slm_jax.nn.conv_forms import conv_lax, conv_transpose, conv_unfold


class CausalConv1d(nn.Module):
    """Convolution whose output t sees no input after frame `t stride + stride - 1`; ceil(T / stride) frames out.

    The state is the last `dilation (kernel - 1) + 1 - stride` input frames. `step` takes a multiple of `stride` frames;
    a real row gives all of them, or ends there (its last, partial block is completed). `before`: what stands before the
    first frame and completes the last block: "zeros"; "repeat", the first and the last frame; "mirror", the frames
    behind them in reverse, for which a row has to begin with more than `history` frames at once. `form`: as `Conv1d`.
    """

    inputs: int
    features: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    before: str = "zeros"
    form: str = "lax"
    use_bias: bool = True
    weight_norm: int | None = None
    kernel_init: Any = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bias_init: Any = nn.initializers.zeros
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    latency = 0

    @property
    def receptive_field(self) -> int:
        """Input frames that can reach one output frame."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def history(self) -> int:
        """Input frames kept between steps."""
        return pad_widths(0, self.kernel, self.stride, self.dilation, "causal")[0]

    def __call__(self, frames: Frames) -> Frames:
        values, mask = zero_padded(frames.values, frames.mask), self._mask_out(frames.mask)
        if self.before == "zeros":
            pads = pad_widths(values.shape[1], self.kernel, self.stride, self.dilation, "causal")
            return Frames(self._convolve(values, pads), mask)
        earlier = self._invented(values, frames.mask)
        return Frames(self._convolve(self._completed(earlier, values, frames.mask), (0, 0)), mask)

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Any:
        """Nothing before the first frame. `capacity` is not needed: the state does not grow."""
        kept = jnp.zeros((batch, self.history, self.inputs), dtype or self.dtype)
        return kept if self.before == "zeros" else (kept, jnp.zeros((batch,), bool))

    def step(self, frames: Frames, state: Any) -> tuple[Frames, Any]:
        """The next frames. Raises `UserError` when their number is no multiple of `stride`."""
        length = frames.values.shape[1]
        require(
            length % self.stride == 0, "frames of a step", length, f"must be a multiple of the stride {self.stride}"
        )
        values, plain = zero_padded(frames.values, frames.mask), self.before == "zeros"
        kept = (state if plain else state[0]).astype(values.dtype)
        if not plain:
            begun = state[1]
            kept = jnp.where(begun[:, None, None], kept, self._invented(values, frames.mask))
        joined = jnp.concatenate([kept, values], axis=1)
        read = conv_length(frames.mask.sum(-1), 1, self.stride, 1, "same") * self.stride
        ended = joined if plain else self._completed(kept, values, frames.mask)
        out = Frames(self._convolve(ended, (0, 0)), self._mask_out(frames.mask))
        rest = rows_from(joined, read, self.history)
        if plain:
            return out, rest.astype(state.dtype)
        real = frames.mask.any(-1)
        return out, (jnp.where(real[:, None, None], rest, state[0]).astype(state[0].dtype), begun | real)

    def reset(self, state: Any, rows: Bool[Array, "B"]) -> Any:
        """The state with `rows` back at the beginning."""
        if self.before == "zeros":
            return jnp.where(rows[:, None, None], 0, state)
        return state[0], state[1] & ~rows

    @nn.compact
    def _convolve(self, values: jax.Array, pads: tuple[int, int]) -> jax.Array:
        shape = (self.kernel, self.inputs // self.groups, self.features)
        kernel, bias = kernel_and_bias(self, shape, torch_axes=(2, 1, 0))
        convolve = {"lax": conv_lax, "unfold": conv_unfold}[self.form]
        settings = (pads, self.stride, self.dilation, self.groups)
        y = convolve(values.astype(self.dtype), kernel.astype(self.dtype), *settings)
        return y if bias is None else y + bias.astype(self.dtype)

    def _mask_out(self, mask: Bool[Array, "B T"]) -> Bool[Array, "B T2"]:
        lengths = conv_length(mask.sum(-1), self.kernel, self.stride, self.dilation, "causal")
        return length_mask(lengths, -(-mask.shape[1] // self.stride))

    def _invented(self, values: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B K D"]:
        """What stands before the first frame of a row."""
        if self.before == "repeat":
            return jnp.repeat(values[:, :1], self.history, axis=1)
        require(self.before == "mirror", "before", self.before, "must be zeros, repeat or mirror")
        return jnp.pad(values, ((0, 0), (0, self.history), (0, 0)))[:, self.history : 0 : -1]

    def _completed(
        self, earlier: Float[Array, "B K D"], values: Float[Array, "B T D"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B T2 D"]:
        """Frames with those before them, the last block of each row completed behind its own end.

        A row that is too short to be mirrored is made longer by zeros first, as EnCodec does.
        """
        room, wanted = self.stride - 1, -values.shape[1] % self.stride
        if not room:
            return jnp.concatenate([earlier, values], axis=1)
        length = mask.sum(-1)[:, None]
        behind = jnp.arange(room)
        if self.before == "repeat":
            source = jnp.broadcast_to(length - 1, (len(length), room))
        else:
            end = jnp.maximum(length, self.history + 1)
            source = jnp.where(length + behind < end, -1, 2 * (end - 1) - (length + behind))
        real = (source >= 0) & (source < length)
        fill = jnp.take_along_axis(values, jnp.clip(source, 0, values.shape[1] - 1)[..., None], axis=1)
        fill = jnp.where(real[..., None], fill, 0)
        joined = jnp.concatenate([earlier, values, jnp.zeros_like(fill)], axis=1)
        placed = jax.vmap(lambda row, tail, start: jax.lax.dynamic_update_slice_in_dim(row, tail, start, 0))
        joined = placed(joined, fill, length[:, 0] + self.history)
        return joined[:, : self.history + values.shape[1] + wanted]


class CausalConvTranspose1d(nn.Module):
    """Transposed convolution cut at the right end, `T upsample` frames out; `upsample` frames for each one in.

    Equal to PyTorch's without padding, less the last `kernel - upsample` frames. The state is what earlier frames
    have added beyond the end.
    """

    inputs: int
    features: int
    kernel: int
    upsample: int
    groups: int = 1
    use_bias: bool = True
    weight_norm: int | None = None
    kernel_init: Any = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bias_init: Any = nn.initializers.zeros
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    stride = 1
    latency = 0

    @property
    def receptive_field(self) -> int:
        """Input frames that can reach one output frame."""
        return -(-self.kernel // self.upsample)

    def __call__(self, frames: Frames) -> Frames:
        state = self.initial_state(frames.values.shape[0])
        return self.step(frames, state)[0]

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> Float[Array, "B K O"]:
        """Nothing before the first frame. `capacity` is not needed: the state does not grow."""
        require(self.kernel >= self.upsample, "kernel", self.kernel, f"must reach over the {self.upsample} new frames")
        return jnp.zeros((batch, self.kernel - self.upsample, self.features), dtype or self.dtype)

    def step(self, frames: Frames, state: Float[Array, "B K O"]) -> tuple[Frames, Float[Array, "B K O"]]:
        """The next frames, `upsample` times as many as came in."""
        y, bias = self._spread(zero_padded(frames.values, frames.mask))
        y = y.at[:, : state.shape[1]].add(state.astype(y.dtype))
        lengths = frames.mask.sum(-1) * self.upsample
        tail = rows_from(y, lengths, state.shape[1]).astype(state.dtype)
        new = y[:, : frames.values.shape[1] * self.upsample]
        mask = length_mask(lengths, new.shape[1])
        return Frames(new if bias is None else new + bias.astype(self.dtype), mask), tail

    def reset(self, state: Float[Array, "B K O"], rows: Bool[Array, "B"]) -> Float[Array, "B K O"]:
        """The state with `rows` back at the beginning."""
        return jnp.where(rows[:, None, None], 0, state)

    @nn.compact
    def _spread(self, values: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        shape = (self.kernel, self.inputs // self.groups, self.features)
        kernel, bias = kernel_and_bias(self, shape, torch_axes=(1, 2, 0))
        edges = (self.kernel - 1, self.kernel - 1)
        y = conv_transpose(values.astype(self.dtype), kernel.astype(self.dtype), self.upsample, edges, self.groups)
        return y, bias


def rows_from(values: Float[Array, "B T D"], starts: Int[Array, "B"], length: int) -> Float[Array, "B L D"]:
    """`length` frames of each row, from its own start."""
    return jax.vmap(lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, length))(values, starts)
