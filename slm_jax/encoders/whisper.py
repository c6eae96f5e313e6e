"""Whisper's encoder (Radford et al. 2022): log-mel frames, two convolutions, sinusoids, a Transformer."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import LogMelConfig, whisper_log_mel
from slm_jax.audio.rates import mask_of
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput, hidden_states
from slm_jax.encoders.span_masks import SpanMasksConfig
from slm_jax.encoders.ssl_layer import SSLLayer
from slm_jax.nn.conv import Conv1d, zero_padded
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.nn.mlp import activation
from slm_jax.nn.norm import LayerNorm
from slm_jax.nn.positions import sinusoidal
from slm_jax.nn.stack import Stack

STRIDE = 2
"""Mel frames per frame."""
MARGIN = 1
"""Mel frames of silence behind a trimmed clip: the one that the convolutions of its last frame reach."""
MEL_FRAMES = ("begun", "whole")


class WhisperEncoderConfig(Config):
    """Shape of an encoder; the defaults are Whisper-base.

    `max_frames` of 20 ms are a window of 30 s. `trim` False: a clip is filled up with silence to a whole window, all of
    which is heard, as published. `trim` True: the frames of a clip are those of its own length, and nothing behind them
    is seen; the frames are then what the encoder of Qwen2-Audio gives with its mask, at a fraction of the cost.
    `mel_frames` of a trimmed clip: "begun" counts the one that it ends in, and silence is heard behind it; "whole"
    leaves that one out, and nothing is heard behind the last frame (Qwen-Audio, of a clip that is alone in its batch).
    `cut`, of an encoder that does not trim: the silence of the window is heard as published, and the frames behind the
    clip are left out afterwards (WavLLM).
    `final_norm` False: the last layer's output, for an adapter that brings the norm. `masks`: mel frames and bands that
    training sets to zero (SpecAugment).
    """

    mel: LogMelConfig = whisper_log_mel()
    layers: int = 6
    width: int = 512
    heads: int = 8
    hidden: int = 2048
    max_frames: int = 1500
    trim: bool = False
    mel_frames: str = "begun"
    cut: bool = False
    final_norm: bool = True
    masks: SpanMasksConfig | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layer_drop: float = 0.0
    unroll: str | bool = "auto"
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.width % self.heads == 0, "heads", self.heads, f"must divide the width {self.width}")
        require(self.max_frames >= 1, "max_frames", self.max_frames, "must be at least 1")
        require(self.mel_frames in MEL_FRAMES, "mel_frames", self.mel_frames, f"must be one of {', '.join(MEL_FRAMES)}")
        require(not (self.cut and self.trim), "cut", self.cut, "goes with a window that is heard whole, without trim")
        for name in ("dropout", "attention_dropout", "activation_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "must be in [0, 1)")
        compute_dtype(self.dtype)

    def make(self) -> "WhisperEncoder":
        """The module."""
        return WhisperEncoder(self)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return STRIDE * self.mel.hop

    @property
    def window(self) -> int:
        """Samples that are heard at once, at most."""
        return self.max_frames * self.hop

    def frame_count(self, n: Any) -> Any:
        """Frames for `n` samples (integer or integer array); without `trim` and `cut` always `max_frames`."""
        mels = n // self.mel.hop if self.mel_frames == "whole" else -(-n // self.mel.hop)
        return -(-mels // STRIDE) if self.trim or self.cut else 0 * n + self.max_frames


class WhisperEncoder(nn.Module):
    """Samples at 16 kHz to frames at 50 Hz."""

    config: WhisperEncoderConfig

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
        """Frames of right-padded rows; `features` are those that the convolutions give.

        `layer` k gives the output of layer k as it is (0: what the first one reads), None that of the final norm;
        `collect` fills `hidden`. Raises `UserError` for rows of no samples and for rows longer than a window.
        """
        c, dtype = self.config, compute_dtype(self.config.dtype)
        rule = f"must be 1 to {c.window}, which is a window: cut the clip into windows"
        require(0 < samples.shape[1] <= c.window, "samples of a row", samples.shape[1], rule)
        mask = jnp.ones(samples.shape, bool) if mask is None else mask
        real = mask_of(c.frame_count(mask.sum(-1)), c.frame_count(samples.shape[1]))
        mel = self._mel(jnp.where(mask, samples, 0.0))
        heard = mask_of(STRIDE * real.sum(-1), mel.shape[1])
        mel = zero_padded(mel, heard) if c.trim and c.mel_frames == "whole" else mel
        mel = mel if deterministic or c.masks is None else self._masked(mel, heard)
        features = self._convolved(mel)[:, : real.shape[1] if c.trim else c.max_frames]
        x = features + self._positions()[: features.shape[1]].astype(dtype)
        x = nn.Dropout(c.dropout, name="dropout")(x, deterministic=deterministic)
        stack = Stack(_layer_maker(c), c.layers, c.unroll, c.remat, name="stack")
        seen = real if c.trim else None
        out = stack(x, None, (seen, None), collect=collect, depth=layer, deterministic=deterministic)
        final_norm = LayerNorm(dtype=dtype, name="final_norm")
        values = final_norm(out.values) if c.final_norm and layer is None else out.values
        count = real.shape[1]
        hidden = hidden_states(x, out.hidden)[:, :, :count] if collect else None
        return EncoderOutput(values[:, :count], real, features[:, :count], hidden)

    def _mel(self, samples: Float[Array, "B N"]) -> Float[Array, "B M C"]:
        """Of the clips with silence behind them: up to the end of a window, or as much as the convolutions see."""
        c, count = self.config, samples.shape[1]
        behind = -(-count // c.hop) * c.hop + MARGIN * c.mel.hop if c.trim else c.window
        return c.mel.make()(jnp.pad(samples, ((0, 0), (0, min(behind, c.window) - count))))

    def _masked(self, mel: Float[Array, "B M C"], heard: Bool[Array, "B M"]) -> Float[Array, "B M C"]:
        """With what training hides at zero."""
        masks = self.config.masks
        assert masks is not None  # for the type checker
        frames, bands = (self.make_rng("dropout") for _ in range(2))
        hidden = masks.frames(frames, heard)[..., None] | masks.channels(bands, *mel.shape[::2])[:, None]
        return jnp.where(hidden, 0.0, mel)

    def _convolved(self, mel: Float[Array, "B M C"]) -> Float[Array, "B T D"]:
        dtype = compute_dtype(self.config.dtype)
        x = mel.astype(dtype)
        for i, stride in enumerate((1, STRIDE)):
            conv = Conv1d(self.config.width, 3, stride, padding=1, dtype=dtype, name=f"conv_{i}")
            x = activation("gelu")(conv(x))
        return x

    def _positions(self) -> Float[Array, "T D"]:
        """Sinusoids, which are not trained. They are weights all the same, since released files hold them rounded."""
        c = self.config
        made = nn.with_logical_partitioning(lambda key: sinusoidal(jnp.arange(c.max_frames), c.width), (None, "embed"))
        return jax.lax.stop_gradient(self.param("positions", made))


def _layer_maker(config: WhisperEncoderConfig) -> Any:
    """A function of `name` that makes a layer. Not a method: Flax would make the method's module the parent."""
    return partial(
        SSLLayer,
        heads=config.heads,
        hidden=config.hidden,
        pre_norm=True,
        gated_by=None,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        layer_drop=config.layer_drop,
        key_bias=False,
        dtype=compute_dtype(config.dtype),
    )
