"""Published shapes of T5 (Raffel et al. 2020), its version 1.1 (Shazeer 2020) and mT5 (Xue et al. 2021).

All have RMS norms before each half of a layer, no biases, scores without scale and a relative bias per stack.
"""

from typing import Any

from slm_jax.core.errors import nearest, require
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig

T5 = {
    "small": (6, 512, 8, 64, 2048),
    "base": (12, 768, 12, 64, 3072),
    "large": (24, 1024, 16, 64, 4096),
    "3b": (24, 1024, 32, 128, 16384),
    "11b": (24, 1024, 128, 128, 65536),
}
"""size -> layers of each stack, width, heads, head width, hidden (`google-t5/t5-*`)."""

T5_V1_1 = {
    "small": (8, 512, 6, 64, 1024),
    "base": (12, 768, 12, 64, 2048),
    "large": (24, 1024, 16, 64, 2816),
    "xl": (24, 2048, 32, 64, 5120),
    "xxl": (24, 4096, 64, 64, 10240),
}
"""Those of version 1.1 and of mT5 (`google/t5-v1_1-*`, `google/mt5-*`; mT0-xxl is an mT5 xxl trained on)."""

VOCABULARY, MT5_VOCABULARY = 32128, 250112


def t5(size: str = "small", vocabulary: int = VOCABULARY, **changes: Any) -> EncoderDecoderConfig:
    """T5: ReLU, a head tied to the table that reads features times width**-0.5. `changes` of both stacks' fields."""
    config = t5_form(_shape("t5", T5, size), vocabulary, **{"activation": "relu", "gated": False, **changes})
    return config.replace(decoder=config.decoder.replace(tied_head=True, head_scale=config.width**-0.5))


def t5_v1_1(size: str = "small", vocabulary: int = VOCABULARY, **changes: Any) -> EncoderDecoderConfig:
    """T5 version 1.1: gated tanh GELU, a head of its own."""
    return t5_form(_shape("t5_v1_1", T5_V1_1, size), vocabulary, **changes)


def mt5(size: str = "small", vocabulary: int = MT5_VOCABULARY, **changes: Any) -> EncoderDecoderConfig:
    """mT5: version 1.1 over 101 languages."""
    return t5_form(_shape("mt5", T5_V1_1, size), vocabulary, **changes)


def t5_form(shape: tuple[int, int, int, int, int], vocabulary: int, **changes: Any) -> EncoderDecoderConfig:
    """The form of version 1.1 at any size (layers, width, heads, head width, hidden); `changes` of both stacks."""
    layers, width, heads, head_width, hidden = shape
    bias = changes.pop("relative_bias", RelativeBiasConfig(buckets=32, max_distance=128))
    encoder = DecoderConfig(
        vocabulary=vocabulary,
        layers=layers,
        width=width,
        heads=heads,
        head_width=None if heads * head_width == width else head_width,
        hidden=hidden,
        norm="rms",
        norm_epsilon=1e-6,
        activation="gelu_tanh",
        gated=True,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        positions="none",
        relative_bias=bias,
        attention_scale=1.0,
        causal=False,
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
    ).replace(**changes)
    one_sided = bias.replace(bidirectional=False)
    decoder = encoder.replace(context_width=encoder.width, causal=True, relative_bias=one_sided, tied_head=False)
    return EncoderDecoderConfig(encoder=encoder, decoder=decoder)


def _shape(family: str, table: dict[str, Any], size: str) -> Any:
    require(size in table, f"{family} size", size, f"must be one of {', '.join(table)}{nearest(size, table)}")
    return table[size]
