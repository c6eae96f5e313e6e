"""HiFi-GAN's generator: transposed convolutions, each followed by residual blocks of several widths.

Source: Kong et al. 2020; the unit form's sizes are those of Polyak et al. 2021 (speech resynthesis from units).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.conv import Conv1d, ConvTranspose1d, zero_padded
from slm_jax.nn.dtypes import at_least_float32, compute_dtype

SLOPE = 0.1
FINAL_SLOPE = 0.01
"""The last rectifier's slope differs from all the others (PyTorch's default, kept by every published checkpoint)."""


class HiFiGANConfig(Config):
    """The V1 shapes at 50 frames/s and 16 kHz (hop 320) as used on units; `hifigan_v1/v2/v3` for 80 mels at hop 256.

    `channels` halve with every entry of `upsample`. `resblock` "1" has two convolutions per dilation, "2" one.
    """

    upsample: tuple[int, ...] = (5, 4, 4, 2, 2)
    upsample_kernels: tuple[int, ...] = (11, 8, 8, 4, 4)
    channels: int = 512
    resblock: str = "1"
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    weight_norm: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        stages, kernels = len(self.upsample), len(self.resblock_kernels)
        require(
            len(self.upsample_kernels) == stages, "upsample_kernels", self.upsample_kernels, f"needs {stages} entries"
        )
        for rate, kernel in zip(self.upsample, self.upsample_kernels, strict=True):
            even = kernel >= rate and (kernel - rate) % 2 == 0
            require(even, "upsample_kernels", self.upsample_kernels, f"{kernel} must be {rate} plus an even number")
        matches = len(self.resblock_dilations) == kernels
        require(matches, "resblock_dilations", self.resblock_dilations, f"needs {kernels} entries")
        require(self.resblock in ("1", "2"), "resblock", self.resblock, "1 or 2")
        divides = self.channels % 2**stages == 0
        require(divides, "channels", self.channels, f"is halved {stages} times: a multiple of {2**stages}")

    @property
    def hop(self) -> int:
        """Samples per input frame."""
        return math.prod(self.upsample)

    @property
    def reads_pitch(self) -> bool:
        """Whether the generator itself needs F0: it does not, F0 comes in as a feature."""
        return False

    def make(self, name: str | None = None) -> "HiFiGAN":
        """The module."""
        return HiFiGAN(self, name=name)


def hifigan_v1() -> HiFiGANConfig:
    """V1 (13.9 M parameters on 80 mels, hop 256)."""
    return HiFiGANConfig(upsample=(8, 8, 2, 2), upsample_kernels=(16, 16, 4, 4))


def hifigan_v2() -> HiFiGANConfig:
    """V2: V1 with a quarter of the channels (0.9 M)."""
    return hifigan_v1().replace(channels=128)


def hifigan_v3() -> HiFiGANConfig:
    """V3: three stages with the lighter residual blocks (1.5 M)."""
    return HiFiGANConfig(
        upsample=(8, 8, 4),
        upsample_kernels=(16, 16, 8),
        channels=256,
        resblock="2",
        resblock_kernels=(3, 5, 7),
        resblock_dilations=((1, 2), (2, 6), (3, 12)),
    )


class HiFiGAN(nn.Module):
    """Features to a waveform, `hop` samples per frame."""

    config: HiFiGANConfig

    @nn.compact
    def __call__(self, features: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B N"]:
        """N = T hop samples in [-1, 1], zero beyond the real frames."""
        c = self.config
        norm, dtype = (0 if c.weight_norm else None), compute_dtype(c.dtype)
        x = Conv1d(c.channels, 7, weight_norm=norm, dtype=dtype, name="conv_pre")(features, mask)
        for stage, (rate, kernel) in enumerate(zip(c.upsample, c.upsample_kernels, strict=True)):
            width = c.channels // 2 ** (stage + 1)
            up = ConvTranspose1d(
                width,
                kernel,
                stride=rate,
                padding=(kernel - rate) // 2,
                weight_norm=norm,
                kernel_init=nn.initializers.normal(0.01),
                dtype=dtype,
                name=f"up_{stage}",
            )
            x = up(nn.leaky_relu(x, SLOPE), mask)
            mask = None if mask is None else jnp.repeat(mask, rate, axis=1)
            x = self._blocks(stage, x, mask)
        post = Conv1d(1, 7, weight_norm=norm, kernel_init=nn.initializers.normal(0.01), dtype=dtype, name="conv_post")
        samples = jnp.tanh(post(nn.leaky_relu(x, FINAL_SLOPE), mask))
        return zero_padded(samples, mask)[..., 0].astype(at_least_float32(dtype))

    def _blocks(self, stage: int, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """The mean of the residual blocks of one stage."""
        c = self.config
        total = jnp.zeros_like(x)
        for index, (kernel, dilations) in enumerate(zip(c.resblock_kernels, c.resblock_dilations, strict=True)):
            name, dtype = f"block_{stage}_{index}", compute_dtype(c.dtype)
            block = ResidualBlock(kernel, dilations, c.resblock == "1", c.weight_norm, dtype, name=name)
            total = total + block(x, mask)
        return total / len(c.resblock_kernels)


class ResidualBlock(nn.Module):
    """Dilated convolutions with residuals; with `paired`, each is followed by an undilated one."""

    kernel: int
    dilations: tuple[int, ...]
    paired: bool
    weight_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T D"]:
        for index, dilation in enumerate(self.dilations):
            y = self._conv(f"dilated_{index}", x.shape[-1], dilation)(nn.leaky_relu(x, SLOPE), mask)
            if self.paired:
                y = self._conv(f"plain_{index}", x.shape[-1], 1)(nn.leaky_relu(y, SLOPE), mask)
            x = x + y
        return x

    def _conv(self, name: str, width: int, dilation: int) -> Conv1d:
        return Conv1d(
            width,
            self.kernel,
            dilation=dilation,
            weight_norm=0 if self.weight_norm else None,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name=name,
        )
