"""A neural codec: encoder, quantizer, decoder; whole, and push by push where it is causal.

    samples -> encoder -> [transformer] -> [fewer frames] -> quantizer -> ids
    ids -> quantizer -> [more frames] -> [transformer] -> decoder -> samples

Source: Zeghidour et al. 2021; Défossez et al. 2022, and 2024 for what stands between encoder and quantizer.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.token_spec import Codebook, TokenSpec
from slm_jax.core.types import Codes, Frames
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.decoders.seanet import SEANetDecoderConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.encoders.seanet import SEANetEncoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.nn import steps
from slm_jax.nn.conv import length_mask
from slm_jax.nn.frame_transformer import FrameTransformerConfig
from slm_jax.nn.streaming_conv import CausalConv1d, CausalConvTranspose1d
from slm_jax.quantizers.codebooks import COLLECTION
from slm_jax.quantizers.fsq import FSQConfig
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import Quantized, ResidualVQConfig


class CodecConfig(Config):
    """`encoder` and `decoder` of the same hop around a `quantizer`, for mono sound at `rate_hz`.

    `context`: a transformer behind the encoder, and another before the decoder. `stride`: frames of the encoder that
    become one latent, by a convolution that repeats its first frame. `whole`: rows are filled up with silence to whole
    frames of tokens first; else the last frame is completed layer by layer. `unquantized`: share of the rows whose
    latents reach the decoder as they are, in training (Mimi: .5).
    """

    encoder: SEANetEncoderConfig | DACEncoderConfig | SpectralEncoderConfig = SEANetEncoderConfig()
    decoder: SEANetDecoderConfig | DACDecoderConfig | SpectralDecoderConfig = SEANetDecoderConfig()
    quantizer: ResidualVQConfig | ParallelVQConfig | FSQConfig = ResidualVQConfig()
    context: FrameTransformerConfig | None = None
    stride: int = 1
    whole: bool = False
    unquantized: float = 0.0
    rate_hz: int = 24_000

    def __post_init__(self) -> None:
        same = self.encoder.hop == self.decoder.hop
        require(same, "hop of the decoder", self.decoder.hop, f"the encoder's is {self.encoder.hop}")
        widths = {"encoder": self.encoder.width, "decoder": self.decoder.width, "quantizer": self.quantizer.width}
        if self.context is not None:
            widths["context"] = self.context.width
        require(len(set(widths.values())) == 1, "widths", widths, "all parts share the latent")
        whole = self.whole or self.unit == self.latent_hop
        require(whole, "whole", self.whole, f"rows must be filled up to multiples of {self.unit} samples")
        require(0 <= self.unquantized < 1, "unquantized", self.unquantized, "must be in [0, 1)")
        require(self.rate_hz > 0 and self.stride > 0, "rate_hz, stride", (self.rate_hz, self.stride), "above 0")

    @property
    def latent_hop(self) -> int:
        """Samples per latent."""
        return self.encoder.hop * self.stride

    @property
    def hop(self) -> int:
        """Samples per frame of tokens."""
        return self.latent_hop * self.quantizer.stride

    @property
    def streams(self) -> bool:
        """Whether it also runs push by push: DAC and SNAC look ahead."""
        sides = type(self.encoder), type(self.decoder)
        return DACEncoderConfig not in sides and DACDecoderConfig not in sides

    @property
    def startup(self) -> int:
        """Frames of tokens that a stream awaits before its first: 1 where there is nothing to wait for."""
        latents = max(self.encoder.startup, self.decoder.startup)
        return -(-latents // (self.stride * self.quantizer.stride))

    @property
    def late(self) -> int:
        """Samples that a stream of sound is late by, because what comes later reaches back."""
        return getattr(self.decoder, "latency", 0) * self.encoder.hop

    @property
    def frames_per_second(self) -> float:
        """Frames of tokens in a second."""
        return self.rate_hz / self.hop

    def bits_per_second(self, books: int | None = None) -> float:
        """Bitrate with the first `books` books."""
        share = self.quantizer.columns(books) / self.quantizer.columns()
        return self.quantizer.bits * share * self.frames_per_second

    @property
    def unit(self) -> int:
        """Samples that rows are filled up to a multiple of, where they are: whole frames, and whole windows of SNAC."""
        window = getattr(self.encoder, "window", None) or 1
        return self.latent_hop * math.lcm(self.quantizer.stride, window)

    def frame_count(self, n: Any) -> Any:
        """Frames of tokens of so many samples; an int or an array of ints."""
        unit = self.unit if self.whole else self.hop
        return -(-n // unit) * (unit // self.hop)

    def spec(self, books: int | None = None) -> TokenSpec:
        """What it makes, a column `codes_<k>` for every id of a frame."""
        sizes = self.quantizer.sizes[: self.quantizer.columns(books)]
        codebooks = tuple(Codebook(name=f"codes_{k}", size=size) for k, size in enumerate(sizes))
        columns = tuple(book.name for book in codebooks)
        return TokenSpec(codebooks=codebooks, hop=self.hop, rate_hz=self.rate_hz, columns=columns)

    def make(self) -> "Codec":
        """The module."""
        return Codec(self)


class Coded(NamedTuple):
    """What training sees: the waveform that was made, the latents, and what the quantizer made of them."""

    samples: Float[Array, "B N"]
    latents: Frames
    quantized: Quantized


class Codec(nn.Module):
    """Samples `[B, N]` in [-1, 1] to codes `[B, T, K]` and back."""

    config: CodecConfig

    def setup(self) -> None:
        c = self.config
        self.encoder, self.decoder, self.quantizer = c.encoder.make(), c.decoder.make(), c.quantizer.make()
        self.encoder_context = None if c.context is None else c.context.make()
        self.decoder_context = None if c.context is None else c.context.make()
        width, kernel, plain = c.encoder.width, 2 * c.stride, {"use_bias": False}
        self.down = CausalConv1d(width, width, kernel, c.stride, before="repeat", **plain) if c.stride > 1 else None
        self.up = CausalConvTranspose1d(width, width, kernel, c.stride, groups=width, **plain) if c.stride > 1 else None

    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        rows: Int[Array, "B"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Coded:
        """The way there and back, with what training needs; N' = T hop samples come out."""
        latents = self.latents(samples, mask)
        quantized = self.quantizer(latents, rows=rows, deterministic=deterministic)
        heard = quantized.values
        if self.config.unquantized and not deterministic:
            plain = jax.random.uniform(self.make_rng("dropout"), heard.shape[:1]) < self.config.unquantized
            heard = jnp.where(plain[:, None, None], latents.values, heard)
        return Coded(self._sound(Frames(heard, latents.mask)), latents, quantized)

    def latents(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"] | None = None) -> Frames:
        """What the quantizer is given."""
        return steps.run(self._inwards(), self._waveform(samples, mask))

    def encode(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"] | None = None, books: int | None = None
    ) -> Codes:
        """Ids of the first `books` books (None: all)."""
        return self.quantizer.encode(self.latents(samples, mask), books)

    def decode(self, codes: Codes) -> Float[Array, "B N"]:
        """T hop samples, 0 beyond the real frames; fewer columns than there are books give a coarser version."""
        return self._sound(self.quantizer.decode(codes))

    def synthesised(self, latents: Frames) -> Frames:
        """The samples of quantized latents, `[B, N, 1]`."""
        return steps.run(self._outwards(), latents)

    def encode_state(self, batch: int) -> tuple:
        """Where a stream of samples begins."""
        return steps.initial_states(self._inwards(), batch)

    def encode_step(self, samples: Frames, state: tuple, books: int | None = None) -> tuple[Codes, tuple]:
        """Codes of the next samples `[B, N, 1]`, whole frames of tokens of every row that is real."""
        latents, state = steps.step(self._inwards(), samples, state)
        return self.quantizer.encode(latents, books), state

    def encode_reset(self, state: tuple, rows: Bool[Array, "B"]) -> tuple:
        """The state with `rows` back at the beginning."""
        return steps.reset(self._inwards(), state, rows)

    def decode_state(self, batch: int) -> tuple:
        """Where a stream of codes begins."""
        return steps.initial_states(self._outwards(), batch)

    def decode_step(self, codes: Codes, state: tuple) -> tuple[Frames, tuple]:
        """Samples `[B, N, 1]` of the next codes."""
        return steps.step(self._outwards(), self.quantizer.decode(codes), state)

    def decode_finish(self, state: tuple) -> Float[Array, "B N 1"]:
        """The last `config.late` samples of rows that end here."""
        return self.decoder.finish(state[-1])

    def decode_reset(self, state: tuple, rows: Bool[Array, "B"]) -> tuple:
        """The state with `rows` back at the beginning."""
        return steps.reset(self._outwards(), state, rows)

    def _sound(self, latents: Frames) -> Float[Array, "B N"]:
        """Whole frames, silent where the decoder gives a few samples less: DAC's does, of odd strides."""
        made = self.synthesised(latents).values[..., 0]
        missing = latents.values.shape[1] * self.config.latent_hop - made.shape[1]
        return jnp.pad(made, ((0, 0), (0, max(0, missing))))

    def _inwards(self) -> list[Any]:
        return [part for part in (self.encoder, self.encoder_context, self.down) if part is not None]

    def _outwards(self) -> list[Any]:
        return [part for part in (self.up, self.decoder_context, self.decoder) if part is not None]

    def _waveform(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"] | None) -> Frames:
        c = self.config
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        if c.whole:
            missing = -samples.shape[1] % c.unit
            samples = jnp.pad(jnp.where(mask, samples, 0), ((0, 0), (0, missing)))
            mask = length_mask(c.frame_count(mask.sum(-1)) * c.hop, samples.shape[1])
        return Frames(samples[..., None], mask)


def settled(config: CodecConfig, variables: Any) -> tuple[CodecConfig, dict[str, Any]]:
    """A trained codec as config and parameters alone: codebooks that averages moved are parameters now.

    For use, for export, and as a start of training by gradients.
    """
    if isinstance(config.quantizer, FSQConfig) or not config.quantizer.counted:
        return config, variables["params"]
    kept = entries_only(variables[COLLECTION]["quantizer"])
    params = {**variables["params"], "quantizer": merged(variables["params"].get("quantizer", {}), kept)}
    return config.replace(quantizer=config.quantizer.learnt_by_gradient()), params


def entries_only(tree: Any) -> dict[str, Any]:
    """The tables of a collection of codebooks."""
    if "entries" in tree:
        return {"entries": tree["entries"]}
    return {name: entries_only(one) for name, one in tree.items()}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two trees of different leaves as one."""
    both = {name: merged(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}
