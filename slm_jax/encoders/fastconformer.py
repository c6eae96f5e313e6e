"""FastConformer (Rekesh et al. 2023, arXiv 2305.05084): eight spectra to a frame, then Conformer layers.

With `chunk` it is the cache-aware streaming form (Noroozi et al. 2023, arXiv 2312.17279): causal convolutions, layer
norms, chunks that see some chunks before them, so that it runs chunk by chunk as it runs whole. What differs there:
NeMo's streaming models pad the strided convolutions by two frames before and one behind, ours by one before, since
their output then ends with the last of its own spectra; a released streaming checkpoint is not read.
"""

from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.encoders.output import EncoderOutput, hidden_states
from slm_jax.encoders.preemphasised_mel import HOP, PreemphasisedMelConfig
from slm_jax.nn.conformer import ConformerShape, ConformerState
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.striding import Striding


class FastConformerConfig(ConformerShape):
    """Shape of the encoder; the defaults are those of Parakeet's (24 layers of 1024).

    `factor`: spectra of 10 ms to a frame, a power of 2. `channels` of the strided convolutions. `scale_input`: frames
    are multiplied by sqrt(width) in front of the layers. All else as in `nn.conformer.ConformerShape`; `chunk` counts
    frames.
    """

    mel: PreemphasisedMelConfig = PreemphasisedMelConfig()
    factor: int = 8
    channels: int = 256
    layers: int = 24
    width: int = 1024
    heads: int = 8
    hidden: int = 4096
    scale_input: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        power = self.factor >= 1 and self.factor & (self.factor - 1) == 0
        require(power, "factor", self.factor, "must be a power of 2")
        require(self.channels >= 1, "channels", self.channels, "must be at least 1")

    @property
    def shape(self) -> ConformerShape:
        """That of the layers."""
        return ConformerShape(**{field.name: getattr(self, field.name) for field in fields(ConformerShape)})

    def make(self, name: str | None = None) -> "FastConformer":  # type: ignore[override]
        """The module."""
        return FastConformer(self, name=name)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array)."""
        return -(-self.mel.frame_count(n) // self.factor)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return HOP * self.factor

    @property
    def streams(self) -> bool:
        """Does it run chunk by chunk?"""
        return self.chunk is not None and self.mel.causal

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk; raises `UserError` where there are none."""
        require(self.streams, "chunk", self.chunk, "chunks and causal spectra make a stream")
        assert self.chunk is not None  # for the type checker
        return self.chunk * self.hop


class FastConformer(nn.Module):
    """Samples at 16 kHz to frames, 12.5 of them a second; sub-modules `striding`, `conformer`."""

    config: FastConformerConfig

    def setup(self) -> None:
        c = self.config
        self.striding = Striding(c.mel.mels, c.width, c.channels, c.factor, compute_dtype(c.dtype))
        self.conformer = c.shape.make()
        self.dropout = nn.Dropout(c.dropout)

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Frames of right-padded rows; `features` are those of the strided convolutions.

        `layer` k gives the output of layer k (0: what the first one reads). `collect` fills `hidden`. Raises
        `UserError` when N is too short for a frame; a shorter row of a batch has none.
        """
        c = self.config
        require(c.frame_count(samples.shape[1]) > 0, "samples", samples.shape, f"at least {HOP} make a frame")
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        return self.heard(c.mel.make()(samples, mask), layer=layer, collect=collect, deterministic=deterministic)

    def heard(
        self, spectra: Frames, *, layer: int | None = None, collect: bool = False, deterministic: bool = True
    ) -> EncoderOutput:
        """The same from the spectra `[B, T, M]`."""
        features = self.striding(spectra)
        x = self.dropout(self._scaled(features.values), deterministic=deterministic)
        read = Frames(x, features.mask)
        out = self.conformer.run(read, layer=layer, collect=collect, deterministic=deterministic)
        hidden = hidden_states(x, out.hidden) if collect else None
        return EncoderOutput(out.values, features.mask, features.values, hidden)

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple[Any, Any, ConformerState]:
        """Of rows of which nothing is heard."""
        c = self.config
        require(c.streams, "chunk", c.chunk, "chunks and causal spectra make a stream")
        striding = Striding(c.mel.mels, c.width, c.channels, c.factor, compute_dtype(c.dtype), parent=None)
        layers = c.shape.make().clone(parent=None)
        states = (part.initial_state(batch, dtype=dtype) for part in (c.mel.make(), striding, layers))
        return tuple(states)  # type: ignore[return-value]

    def step(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"], state: tuple[Any, Any, ConformerState]
    ) -> tuple[Frames, tuple[Any, Any, ConformerState]]:
        """The next samples, whole chunks of them: their frames, and the state.

        A row gives all of a chunk, none of it, or ends within it. Raises `UserError` for samples that are no chunks.
        """
        size = self.config.chunk_samples
        require(samples.shape[1] % size == 0, "samples of a step", samples.shape[1], f"must be chunks of {size}")
        spectra, mel = self.config.mel.make().step(samples, mask, state[0])
        features, striding = self.striding.step(spectra, state[1])
        out, layers = self.conformer.step(Frames(self._scaled(features.values), features.mask), state[2])
        return out, (mel, striding, layers)

    def reset(self, state: tuple[Any, Any, ConformerState], rows: Bool[Array, "B"]) -> tuple[Any, Any, ConformerState]:
        """The state with `rows` as new."""
        return jax.tree.map(lambda leaf: jnp.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), 0, leaf), state)

    def _scaled(self, x: jax.Array) -> jax.Array:
        return x * jnp.sqrt(jnp.asarray(self.config.width, x.dtype)) if self.config.scale_input else x


SIZES = {
    "small": (16, 176, 4, 9, True),
    "medium": (16, 256, 4, 9, True),
    "large": (17, 512, 8, 9, True),
    "xlarge": (24, 1024, 8, 9, True),
    "xxlarge": (42, 1024, 8, 5, False),
}
"""size -> layers, width, heads, kernel, whether its input is scaled (NeMo, `fast-conformer_transducer_bpe.yaml`)."""


def fastconformer(size: str = "large", **changes: Any) -> FastConformerConfig:
    """A published shape; raises `UserError` for an unknown size."""
    require(size in SIZES, "size of FastConformer", size, f"must be one of {', '.join(SIZES)}")
    layers, width, heads, kernel, scaled = SIZES[size]
    channels = width if size in ("small", "medium") else 256
    config = FastConformerConfig(
        layers=layers,
        width=width,
        heads=heads,
        hidden=4 * width,
        kernel=kernel,
        scale_input=scaled,
        channels=channels,
    )
    return config.replace(**changes)


def fastconformer_streaming(size: str = "large", **changes: Any) -> FastConformerConfig:
    """Chunks of 14 frames (1.12 s) that see five before them, as `fastconformer_ctc_bpe_streaming.yaml` begins with."""
    mel = PreemphasisedMelConfig(normalise="none", causal=True)
    return fastconformer(size, mel=mel, norm="layer", chunk=14, left=5).replace(**changes)


def fastconformer_tiny(**changes: Any) -> FastConformerConfig:
    """Four layers of 144 at 25 frames a second, in chunks of 0.4 s that see four before them: for runs on a CPU."""
    config = fastconformer_streaming(
        "small", layers=4, width=144, heads=4, hidden=576, channels=64, factor=4, chunk=10, left=4, dropout=0.0
    )
    return config.replace(attention_dropout=0.0, activation_dropout=0.0).replace(**changes)
