"""A codec's decoder over spectra: causal ConvNeXt blocks, then an inverse STFT (Siuzdak 2023), step by step too."""

from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.nn.convnext import CausalConvNeXt
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.framing import CausalISTFT
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.steps import Elementwise, Steps
from slm_jax.nn.streaming_conv import CausalConv1d


class SpectralDecoderConfig(Config):
    """`blocks` of `inner` channels over latents of `width`, then windows of `n_fft` samples, one every `hop`."""

    width: int = 64
    inner: int = 320
    blocks: int = 6
    kernel: int = 7
    expansion: int = 3
    n_fft: int = 1280
    hop: int = 320
    dtype: str = "float32"

    startup = 1

    def __post_init__(self) -> None:
        for name in ("width", "inner", "blocks", "kernel", "expansion", "hop"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.n_fft % self.hop == 0, "n_fft", self.n_fft, f"a multiple of the hop of {self.hop}")

    @property
    def latency(self) -> int:
        """Frames that a stream is late by, since later windows reach back."""
        return self.n_fft // self.hop - 1

    def make(self, name: str | None = None) -> "SpectralDecoder":
        """The module."""
        return SpectralDecoder(self, name=name)


class SpectralDecoder(Steps):
    """Latents `[B, T, D]` to samples `[B, T hop, 1]`."""

    config: SpectralDecoderConfig

    def setup(self) -> None:
        c = self.config
        dtype = compute_dtype(c.dtype)
        blocks = [CausalConvNeXt(c.inner, c.expansion * c.inner, c.kernel, dtype=dtype) for _ in range(c.blocks)]
        bins = c.n_fft // 2 + 1
        self.norm = LayerNorm(dtype=dtype)
        self.layers = [
            CausalConv1d(c.width, c.inner, c.kernel, dtype=dtype),
            *blocks,
            Elementwise(partial(_normed, self.norm)),
            CausalConv1d(c.inner, 2 * bins, 1, dtype=dtype),
            CausalISTFT(c.n_fft, c.hop),
        ]

    def finish(self, state: tuple) -> Float[Array, "B K 1"]:
        """The samples that a stream still owes when it ends."""
        last: Any = self.layers[-1]
        return last.finish(state[-1])


def _normed(norm: nn.Module, values: Array) -> Any:
    return norm(values)
