"""w2v-BERT 2.0: a Conformer over a filter bank (Chung et al. 2021; Seamless Communication et al. 2023, section 3.2).

The class is `Wav2Vec2BertModel` of transformers without its adapter. AudioLM's own w2v-BERT was never released.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.conformer_layer import ConformerLayer
from slm_jax.encoders.output import EncoderOutput, hidden_states
from slm_jax.encoders.span_masks import SpanMasksConfig, with_hidden_spans
from slm_jax.encoders.ssl_layer import bert_init
from slm_jax.encoders.stacked_fbank import HOP, WINDOW, stacked_fbank, stacked_frame_count
from slm_jax.nn.conv import zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.relative_key import RelativeKeyConfig
from slm_jax.nn.stack import Stack

RATES = ("dropout", "attention_dropout", "activation_dropout", "conv_dropout", "feature_dropout", "layer_drop")


class W2VBERTConfig(Config):
    """Shape of the encoder; the defaults are those of w2v-BERT 2.0.

    `stacked` frames of 10 ms with `mels` bands are one frame: 2 give 50 Hz, 4 the 25 Hz of AudioLM. `kernel`: frames
    that a causal convolution sees. `position`: distances that attention tells apart. `mask_embedding`: whether there is
    a vector for masked frames; `masks`: what training masks where no `span_mask` is given. `dropout` and its kin act in
    training only. `unroll`, `remat`: see `nn.stack`.
    """

    mels: int = 80
    stacked: int = 2
    layers: int = 24
    width: int = 1024
    heads: int = 16
    hidden: int = 4096
    kernel: int = 31
    position: RelativeKeyConfig = RelativeKeyConfig()
    activation: str = "silu"
    mask_embedding: bool = True
    masks: SpanMasksConfig | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    conv_dropout: float = 0.1
    feature_dropout: float = 0.0
    layer_drop: float = 0.1
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("mels", "stacked", "layers", "hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        require(self.kernel >= 1 and self.kernel % 2 == 1, "kernel", self.kernel, "must be odd and at least 1")
        for name in RATES:
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        require(self.masks is None or self.mask_embedding, "masks", self.masks, "need a mask embedding")
        activation(self.activation)
        compute_dtype(self.dtype)

    def make(self) -> "W2VBERT":
        """The module."""
        return W2VBERT(self)

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array); 49 for 16,000 in the published shape."""
        return stacked_frame_count(n, self.stacked)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return HOP * self.stacked

    @property
    def shortest(self) -> int:
        """Samples below which there is no frame: 560."""
        return WINDOW + HOP * (self.stacked - 1)


def w2v_bert_2() -> W2VBERTConfig:
    """w2v-BERT 2.0 (`facebook/w2v-bert-2.0`), 580 M parameters."""
    return W2VBERTConfig()


def w2v_bert_audiolm() -> W2VBERTConfig:
    """In the likeness of AudioLM's w2v-BERT XL: 1,024 channels at 25 Hz, 24 layers, of which it takes layer 7.

    The published one has 0.6 B parameters, another front end and other positions; its weights were never released.
    """
    return W2VBERTConfig(stacked=4)


def w2v_bert_tiny() -> W2VBERTConfig:
    """4 layers of 192: about 4 M parameters, for small runs on a CPU."""
    return W2VBERTConfig(
        layers=4,
        width=192,
        heads=4,
        hidden=768,
        kernel=15,
        position=RelativeKeyConfig(left=32, right=8),
        conv_dropout=0.0,
        layer_drop=0.0,
    )


class W2VBERT(nn.Module):
    """Samples at 16 kHz to frames, 50 of them a second in the published shape."""

    config: W2VBERTConfig

    @nn.compact
    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        span_mask: Bool[Array, "B T"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Frames of right-padded rows in [-1, 1]; `features` are the stacked filter bank.

        `layer` k stops after layer k (0: what the first layer reads). `collect` fills `hidden`. Frames where
        `span_mask` holds are replaced by the learnt mask embedding. Training (`deterministic` False) needs the rng
        `dropout`. Raises `UserError` when N is too short for a frame; a shorter row of a batch has none.
        """
        c = self.config
        rule = f"shorter than one frame: at least {c.shortest} samples are needed"
        require(c.frame_count(samples.shape[1]) > 0, "samples", samples.shape, rule)
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        features = stacked_fbank(samples, mask, c.mels, c.stacked)
        x = self._embedded(features.values, features.mask, span_mask, deterministic)
        stack = Stack(_layer_maker(c), c.layers, unroll=c.unroll, remat=c.remat, name="stack")
        out = stack(x, None, (features.mask,), collect=collect, depth=layer, deterministic=deterministic)
        hidden = hidden_states(x, out.hidden) if collect else None
        return EncoderOutput(out.values, features.mask, features.values, hidden)

    def _embedded(
        self, features: jax.Array, mask: jax.Array, span_mask: jax.Array | None, deterministic: bool
    ) -> Float[Array, "B T D"]:
        """What the first layer reads: projected and masked."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = LayerNorm(dtype=dtype, name="feature_norm")(features)
        project = Linear(c.width, out_names=("embed",), kernel_init=bert_init, dtype=dtype, name="feature_projection")
        x = nn.Dropout(c.feature_dropout, name="feature_dropout")(project(x), deterministic=deterministic)
        x = with_hidden_spans(self, x, mask, span_mask, deterministic)
        return nn.Dropout(c.dropout, name="dropout")(zero_padded(x, mask), deterministic=deterministic)


def _layer_maker(config: W2VBERTConfig) -> Callable[..., ConformerLayer]:
    """A function of `name` that makes a layer. Not a method: Flax would make the method's module the parent."""
    return partial(
        ConformerLayer,
        heads=config.heads,
        hidden=config.hidden,
        kernel=config.kernel,
        position=config.position,
        activation=config.activation,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        conv_dropout=config.conv_dropout,
        layer_drop=config.layer_drop,
        dtype=compute_dtype(config.dtype),
    )
