"""Spectra to fewer frames by convolutions of stride 2 over time and frequency, depthwise but for the first one.

The front of FastConformer (Rekesh et al. 2023, arXiv 2305.05084). A frame that comes out reads the last of the spectra
that it stands for and one before the first, so that it runs step by step as it is.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.conv import length_mask, zero_padded
from slm_jax.nn.conv_forms import conv_2d
from slm_jax.nn.linear import Linear
from slm_jax.nn.streaming_conv import rows_from

TAPS = 3
State = tuple[Float[Array, "B 1 _"], ...]
"""The last frame that each convolution read."""


class Striding(nn.Module):
    """`[B, T, M]` to `[B, ceil(T / factor), width]`; `factor` a power of 2.

    Parameters `conv_0_kernel` (to `channels`), then `conv_i_kernel` by channel with a map `mix_i` behind it, with their
    biases, and `map`. What is not real is zero in front of every convolution. References:
    `ParakeetEncoderSubsamplingConv2D` of transformers, NeMo's `dw_striding`.
    """

    mels: int
    width: int
    channels: int = 256
    factor: int = 8
    dtype: Any = jnp.float32

    latency = 0

    @property
    def stride(self) -> int:
        """Spectra of a frame."""
        return self.factor

    @property
    def receptive_field(self) -> int:
        """Spectra that reach a frame."""
        return 2 * self.factor - 1

    @property
    def depth(self) -> int:
        """Convolutions."""
        return self.factor.bit_length() - 1

    def __call__(self, frames: Frames) -> Frames:
        missing = -frames.mask.shape[1] % self.factor
        values = jnp.pad(frames.values, ((0, 0), (0, missing), (0, 0)))
        mask = jnp.pad(frames.mask, ((0, 0), (0, missing)))
        return self.step(Frames(values, mask), self.initial_state(len(mask)))[0]

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> State:
        """Nothing before the first frame."""
        sizes, bands = [], self.mels
        for place in range(self.depth):
            sizes.append(bands * (self.channels if place else 1))
            bands = -(-bands // 2)
        return tuple(jnp.zeros((batch, 1, size), dtype or self.dtype) for size in sizes)

    @nn.compact
    def step(self, frames: Frames, state: State) -> tuple[Frames, State]:
        """The next spectra, a multiple of `factor` of them; a row gives all, none, or ends there."""
        length, bands = frames.values.shape[1:]
        require(length % self.factor == 0, "frames of a step", length, f"must be a multiple of {self.factor}")
        require(bands == self.mels, "mels", self.mels, f"the frames have {bands} bands")
        x: jax.Array = zero_padded(frames.values, frames.mask).astype(self.dtype)[..., None]
        count, after = frames.mask.sum(-1, dtype=jnp.int32), []
        for place, kept in enumerate(state):
            x, kept, count = self._halved(place, x, kept, count)
            after.append(kept)
            mask = length_mask(count, x.shape[1])
            x = jnp.where(mask[..., None, None], x, 0)
            if place:
                x = Linear(self.channels, ("conv_in",), ("conv_out",), dtype=self.dtype, name=f"mix_{place}")(x)
                x = jnp.where(mask[..., None, None], x, 0)
            x = jax.nn.relu(x)
        flat = jnp.swapaxes(x, 2, 3).reshape(*x.shape[:2], -1)
        out = Linear(self.width, ("mlp",), ("embed",), dtype=self.dtype, name="map")(flat)
        return Frames(out, mask), tuple(after)

    def _halved(
        self, place: int, x: Float[Array, "B T F C"], kept: Float[Array, "B 1 D"], count: Int[Array, "B"]
    ) -> tuple[Float[Array, "B T2 F2 C2"], Float[Array, "B 1 D"], Int[Array, "B"]]:
        """One convolution, the frame that it reads again next time, and how many of its frames are real."""
        rows, length, bands, channels = x.shape
        joined = jnp.concatenate([kept.reshape(rows, 1, bands, channels).astype(x.dtype), x], axis=1)
        rest = rows_from(joined.reshape(rows, length + 1, -1), count, 1).astype(kept.dtype)
        kernel, bias = self._weights(f"conv_{place}")
        if place:
            y = _by_channel(joined, kernel[:, :, 0])
        else:
            y = conv_2d(joined, kernel, (0, 1), (2, 2), (1, 1))
        return y + bias, rest, -(-count // 2)

    def _weights(self, name: str) -> tuple[jax.Array, jax.Array]:
        spread = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel = nn.with_logical_partitioning(spread, (None, None, "conv_in", "conv_out"))
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("conv_out",))
        shape = (TAPS, TAPS, 1, self.channels)
        made = self.param(f"{name}_kernel", kernel, shape, jnp.float32).astype(self.dtype)
        return made, self.param(f"{name}_bias", bias, (self.channels,), jnp.float32).astype(self.dtype)


def _by_channel(x: Float[Array, "B T F C"], kernel: Float[Array, "K L C"]) -> Float[Array, "B T2 F2 C"]:
    """Each channel filtered by its own taps with stride 2, a zero on either side in frequency: a sum of copies."""
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    times, bands = (x.shape[1] - TAPS) // 2 + 1, (x.shape[2] - TAPS) // 2 + 1
    found: Any = 0
    for row in range(TAPS):
        for column in range(TAPS):
            cut = x[:, row : row + 2 * times - 1 : 2, column : column + 2 * bands - 1 : 2]
            found = found + cut * kernel[row, column]
    return found
