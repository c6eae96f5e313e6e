"""BEATs: an audio encoder over squares of a filter bank (Chen et al. 2022, "BEATs: Audio Pre-Training with Acoustic
Tokenizers")."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput, hidden_states
from slm_jax.encoders.positional_conv import PositionalConv, PositionalConvConfig
from slm_jax.encoders.spectrogram_patches import HOP, MELS, WINDOW, SpectrogramPatches, patch_count
from slm_jax.encoders.ssl_layer import SSLLayer, bert_init
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.linear import Linear
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.relative_bias import RelativeBias, RelativeBiasConfig
from slm_jax.nn.stack import Stack


class BEATsConfig(Config):
    """Shape of the encoder; the defaults are the published base model's.

    `patch`: edge of a square, in frames of 10 ms and in bands; `patch_width`: channels of its embedding.
    `relative_bias`: the defaults of the published class, which a checkpoint's own settings override.
    `reference_padding`: which tokens are real by the reference's rule (`spectrogram_patches.reference_patch_mask`);
    False makes a padded row equal to the row alone. `dropout` and its kin act in training only. `unroll`, `remat`:
    see `nn.stack`.
    """

    patch: int = 16
    patch_width: int = 512
    position: PositionalConvConfig = PositionalConvConfig()
    relative_bias: RelativeBiasConfig = RelativeBiasConfig(buckets=320, max_distance=1280)
    layers: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    feature_dropout: float = 0.0
    layer_drop: float = 0.0
    reference_padding: bool = False
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        whole = self.patch >= 2 and MELS % self.patch == 0
        require(whole, "patch", self.patch, f"must be at least 2 and divide the {MELS} bands")
        require(self.layers >= 1, "layers", self.layers, "must be at least 1")
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        divides = self.position.groups == 0 or self.width % self.position.groups == 0
        require(divides, "position.groups", self.position.groups, f"must divide the width {self.width}")
        for name in ("dropout", "attention_dropout", "activation_dropout", "feature_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        compute_dtype(self.dtype)

    def make(self) -> "BEATs":
        """The module."""
        return BEATs(self)

    def frame_count(self, n: Any) -> Any:
        """Tokens for `n` samples (integer or integer array): 496 for 160,000, 8 for each whole 160 ms."""
        return patch_count(n, self.patch)

    @property
    def hop(self) -> int:
        """Samples per token on average, 320: 8 tokens share the same 160 ms, one for each band."""
        return HOP * self.patch // (MELS // self.patch)

    @property
    def shortest(self) -> int:
        """Samples below which there is no token: 2,800."""
        return WINDOW + HOP * (self.patch - 1)

    @property
    def residual_scale(self) -> float:
        """DeepNorm's alpha (Wang et al. 2022) for an encoder of this depth."""
        return (2 * self.layers) ** 0.25


def beats_base() -> BEATsConfig:
    """BEATs base (iterations 1 to 3+), 90 M parameters without the head of a fine-tuned one."""
    return BEATsConfig()


def beats_tiny() -> BEATsConfig:
    """2 layers of 64 for tests and small runs: depthwise positions, whose gradient is quick on a CPU."""
    return BEATsConfig(
        patch_width=32,
        position=PositionalConvConfig(kernel=31, groups=0, weight_norm=False, form="unfold"),
        relative_bias=RelativeBiasConfig(buckets=32, max_distance=128),
        layers=2,
        width=64,
        heads=4,
        hidden=128,
    )


class BEATs(nn.Module):
    """Samples at 16 kHz to 50 tokens per second.

    The post-norm Transformer of WavLM with DeepNorm residuals; the gate on the position bias reads the queries. New
    weights are drawn as BERT's: DeepNorm's smaller start, which training from nothing asks for, is not made here.
    """

    config: BEATsConfig

    @nn.compact
    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        layer: int | None = None,
        collect: bool = False,
        deterministic: bool = True,
    ) -> EncoderOutput:
        """Tokens of right-padded rows in [-1, 1], eight bands of one 160 ms after the other.

        A token is real when all its frames lie within the real samples. `layer` k stops after layer k (0: what the
        first layer reads). `collect` fills `hidden`. Training (`deterministic` False) needs the rng `dropout`. Raises
        `UserError` when N is too short for a token; a shorter row of a batch has none.
        """
        c = self.config
        rule = f"shorter than one square of the filter bank: at least {c.shortest} samples are needed"
        require(c.frame_count(samples.shape[1]) > 0, "samples", samples.shape, rule)
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        dtype = compute_dtype(c.dtype)
        front_end = SpectrogramPatches(c.patch_width, c.patch, c.reference_padding, dtype=dtype, name="front_end")
        features, token_mask = front_end(samples, mask)
        x = self._embedded(features, token_mask, deterministic)
        bias = RelativeBias(c.relative_bias, c.heads, name="relative_bias")(x.shape[1])
        stack = Stack(_layer_maker(c), c.layers, unroll=c.unroll, remat=c.remat, name="stack")
        out = stack(x, None, (token_mask, bias), collect=collect, depth=layer, deterministic=deterministic)
        return EncoderOutput(out.values, token_mask, features, hidden_states(x, out.hidden) if collect else None)

    def _embedded(self, features: jax.Array, mask: jax.Array, deterministic: bool) -> Float[Array, "B T D"]:
        """What the first layer reads: projected, with positions."""
        c, dtype = self.config, compute_dtype(self.config.dtype)
        x = LayerNorm(dtype=dtype, name="feature_norm")(features)
        project = Linear(c.width, out_names=("embed",), kernel_init=bert_init, dtype=dtype, name="feature_projection")
        x = nn.Dropout(c.feature_dropout, name="feature_dropout")(project(x), deterministic=deterministic)
        x = x + PositionalConv(c.position, dtype=dtype, name="position")(x, mask)
        x = LayerNorm(dtype=dtype, name="embedding_norm")(x)
        return nn.Dropout(c.dropout, name="dropout")(x, deterministic=deterministic)


def _layer_maker(config: BEATsConfig) -> Callable[..., SSLLayer]:
    """A function of `name` that makes a layer. Not a method: Flax would make the method's module the parent."""
    return partial(
        SSLLayer,
        heads=config.heads,
        hidden=config.hidden,
        pre_norm=False,
        gated_by="queries",
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        layer_drop=config.layer_drop,
        residual_scale=config.residual_scale,
        dtype=compute_dtype(config.dtype),
    )
