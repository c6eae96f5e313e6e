"""Layers in front of a language model through which its words listen to speech (BESTOW, Chen et al. 2024, 2406.19954).

Words are queries and speech is keys and values, before the language model's first layer: speech takes no place in its
rows. Reference: `TransformerCrossAttention` of NeMo, whose decoder is `torch.nn.TransformerDecoder` of pre-norm layers
with a last norm. There are no positions: what comes after what, words know by causal attention, speech by its encoder.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.nn.caches import CrossCache, empty_cache, empty_context
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.pacing import PaceConfig, PacedCache, PartlySeen
from slm_jax.nn.positions import sinusoidal
from slm_jax.nn.stack import Stack
from slm_jax.nn.visibility import visible
from slm_jax.sequence_models.decoder_layer import DecoderLayer, make_norm
from slm_jax.sequence_models.decoder_shape import DecoderShape

State = tuple[CrossCache, ...]


class ListenerConfig(Config):
    """`layers` between the words of a language model of `width` channels and its first layer.

    `inner`: channels of the layers, with maps in front of words and speech and one behind; None keeps `width`.
    `hidden`: of the feed-forward blocks, None as wide as the layers (the released code). `sinusoids`: frames of speech
    know their place; the released code adds none. `gain`: what is added to the words begins so many times as loud, by a
    learnt factor for each channel; None has no such factor (the released code): a last norm is far louder than words.
    """

    width: int
    layers: int = 2
    heads: int = 8
    inner: int | None = None
    hidden: int | None = None
    activation: str = "relu"
    sinusoids: bool = False
    gain: float | None = None
    dropout: float = 0.1
    init_scale: float = 0.02
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.gain is None or self.gain > 0, "gain", self.gain, "must be above 0")
        require(self.layers >= 1 and self.shape.layers == self.layers, "layers", self.layers, "must be at least 1")

    @property
    def channels(self) -> int:
        """Of the layers."""
        return self.width if self.inner is None else self.inner

    @property
    def shape(self) -> DecoderShape:
        """What the layers read; there is no vocabulary."""
        return DecoderShape(
            vocabulary=1,
            layers=self.layers,
            width=self.channels,
            heads=self.heads,
            hidden=self.hidden or self.channels,
            context_width=self.channels,
            activation=self.activation,
            positions="none",
            dropout=self.dropout,
            attention_dropout=self.dropout,
            activation_dropout=self.dropout,
            init_scale=self.init_scale,
            unroll=self.unroll,
            remat=self.remat,
            dtype=self.dtype,
        )

    def make(self) -> "Listener":
        """The module."""
        return Listener(self)


class Listener(nn.Module):
    """Words `[B, T, D]` and speech `[B, S, D]` to words that have listened; a residual goes around all of it.

    Sub-modules `words`, `speech` and `out` where the layers have a width of their own, `blocks`, `final_norm`;
    parameter `gain`.
    """

    config: ListenerConfig

    def setup(self) -> None:
        c, shape, dtype = self.config, self.config.shape, compute_dtype(self.config.dtype)
        self.blocks = Stack(partial(DecoderLayer, shape), c.layers, c.unroll, c.remat)
        self.final_norm = make_norm(shape, None)
        if c.inner is not None:
            self.words = Linear(c.inner, out_names=("embed",), dtype=dtype)
            self.speech = Linear(c.inner, out_names=("embed",), dtype=dtype)
            self.out = Linear(c.width, in_names=("embed",), dtype=dtype)
        if c.gain is not None:
            init = nn.with_logical_partitioning(nn.initializers.constant(c.gain), ("norm",))
            self.gain = self.param("gain", init, (c.width,), jnp.float32)

    def __call__(
        self,
        words: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        speech: Frames,
        read: Int[Array, "B T"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Whole rows. `read`: how many frames each entry sees; None: all."""
        heard: Frames | PartlySeen = self._heard(speech)
        if read is not None:
            there = jnp.arange(speech.mask.shape[1]) < read[..., None]
            heard = PartlySeen(heard.values, speech.mask[:, None] & there)
        sees = visible(mask, None, None, True)
        out = self.blocks(self._entered(words), None, (sees, None, None, heard), deterministic=deterministic)
        return words + self._finished(out.values)

    @nn.nowrap
    def initial_state(self, batch: int, capacity: int, dtype: Any = None, pace: PaceConfig | None = None) -> State:
        """Rows of up to `capacity` entries that have heard nothing; no parameters needed."""
        shape = self.config.shape
        dtype = compute_dtype(shape.dtype) if dtype is None else dtype
        nothing = empty_context(batch, 0, shape.groups, shape.channels, dtype)
        if pace is not None:
            before = jnp.full((batch,), -1, jnp.int32)
            nothing = PacedCache(nothing.keys, nothing.values, nothing.mask, before, pace)
        own = partial(empty_cache, batch, capacity, shape.groups, shape.channels, dtype)
        return tuple(CrossCache(own(), nothing) for _ in range(shape.layers))

    def extend(
        self,
        words: Float[Array, "B T D"],
        state: State,
        mask: Bool[Array, "B T"] | None = None,
        speech: Frames | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """The next entries; `speech` takes the place of what the state keeps. No entries (T = 0) only hear it."""
        real = jnp.ones(words.shape[:2], bool) if mask is None else mask
        heard = None if speech is None else self._heard(speech)
        out = self.blocks(self._entered(words), state, (None, None, real, heard), deterministic=True)
        return words + self._finished(out.values), out.caches

    def _heard(self, speech: Frames) -> Frames:
        """What the layers look at, with zeros in its padding: a weight of nought would keep a NaN there."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        values = jnp.where(speech.mask[..., None], speech.values, 0.0).astype(dtype)
        values = values if c.inner is None else self.speech(values)
        if c.sinusoids:
            values = values + sinusoidal(jnp.arange(values.shape[1])[None], c.channels).astype(dtype)
        return Frames(values, speech.mask)

    def _entered(self, words: jax.Array) -> jax.Array:
        return words if self.config.inner is None else self.words(words)

    def _finished(self, x: jax.Array) -> jax.Array:
        c, x = self.config, self.final_norm(x)
        x = x if c.inner is None else self.out(x)
        return x if c.gain is None else x * self.gain.astype(x.dtype)
