"""Published codecs by name and size, as configs; `learning` says how their codebooks move while they are trained."""

from typing import Any

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import require
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.decoders.seanet import SEANetDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.encoders.seanet import SEANetEncoderConfig
from slm_jax.nn.frame_transformer import FrameTransformerConfig
from slm_jax.quantizers.codebooks import CodebookConfig, Learning
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig

DAC_SIZES: dict[int, tuple[tuple[int, ...], int]] = {
    16_000: ((2, 4, 5, 8), 12),
    24_000: ((2, 4, 5, 8), 32),
    44_100: ((2, 4, 8, 8), 9),
}
"""Rate -> strides of the encoder, books."""
SNAC_SIZES: dict[int, dict[str, Any]] = {
    24_000: {"channels": (48, 1024), "strides": (2, 4, 8, 8), "rates": (4, 2, 1), "window": None},
    32_000: {"channels": (64, 1536), "strides": (2, 3, 8, 8), "rates": (8, 4, 2, 1), "window": 32},
    44_100: {"channels": (64, 1536), "strides": (2, 3, 8, 8), "rates": (8, 4, 2, 1), "window": 32},
}


def soundstream(books: int = 12, learning: Learning = "averages", **changes: Any) -> CodecConfig:
    """SoundStream as AudioLM uses it (Zeghidour et al. 2021; Borsos et al. 2022): 16 kHz, 50 frames a second, 6 kb/s.

    The width of its latents is an interpretation, and so is silence before the beginning.
    """
    shape: dict[str, Any] = {
        "filters": 32,
        "width": 256,
        "strides": (2, 4, 5, 8),
        "residual_layers": 3,
        "residual_kernel": 7,
        "dilation_base": 3,
        "compress": 1,
        "shortcut": False,
        "lstm": 0,
        "before": "zeros",
    }
    codebook = CodebookConfig(size=1024, width=256, learning=learning)
    return CodecConfig(
        encoder=SEANetEncoderConfig(last_kernel=3, **shape),
        decoder=SEANetDecoderConfig(last_kernel=7, **shape),
        quantizer=ResidualVQConfig(width=256, books=books, codebook=codebook, dropout=1.0),
        whole=True,
        rate_hz=16_000,
    ).replace(**changes)


def encodec(books: int = 8, learning: Learning = "averages", **changes: Any) -> CodecConfig:
    """EnCodec at 24 kHz (Défossez et al. 2022): 75 frames a second, 8 books of 1,024 for 6 kb/s, up to 32."""
    codebook = ResidualVQConfig().codebook.replace(learning=learning)
    return CodecConfig(quantizer=ResidualVQConfig(books=books, codebook=codebook)).replace(**changes)


def mimi(books: int = 32, learning: Learning = "averages", **changes: Any) -> CodecConfig:
    """Mimi at 24 kHz (Défossez et al. 2024): 12.5 frames a second, one semantic and up to 31 acoustic books of 2,048.

    Its books are those of Moshi: 8 for 1.1 kb/s.
    """
    shape: dict[str, Any] = {
        "filters": 64,
        "width": 512,
        "strides": (4, 5, 6, 8),
        "last_kernel": 3,
        "shortcut": False,
        "lstm": 0,
        "before": "zeros",
        "weight_norm": False,
    }
    codebook = ResidualVQConfig().codebook.replace(size=2048, width=256, learning=learning)
    first = ResidualVQConfig(width=512, books=1, codebook=codebook, projection="around")
    parts = (first, first.replace(books=books - 1)) if books > 1 else (first,)
    return CodecConfig(
        encoder=SEANetEncoderConfig(**shape),
        decoder=SEANetDecoderConfig(**shape),
        quantizer=ParallelVQConfig(parts=parts),
        context=FrameTransformerConfig(),
        stride=2,
        whole=True,
    ).replace(**changes)


def dac(rate_hz: int = 44_100, **changes: Any) -> CodecConfig:
    """DAC (Kumar et al. 2023) for 16, 24 or 44.1 kHz: books of 1,024, looked up by direction in 8 channels."""
    require(rate_hz in DAC_SIZES, "rate of DAC", rate_hz, f"one of {', '.join(map(str, DAC_SIZES))}")
    strides, books = DAC_SIZES[rate_hz]
    codebook = CodebookConfig(size=1024, width=8, learning="gradient", normalised=True)
    return CodecConfig(
        encoder=DACEncoderConfig(channels=64, width=1024, strides=strides),
        decoder=DACDecoderConfig(channels=1536, width=1024, strides=strides),
        quantizer=ResidualVQConfig(width=1024, books=books, codebook=codebook, projection="each", dropout=0.5),
        whole=True,
        rate_hz=rate_hz,
    ).replace(**changes)


def snac(rate_hz: int = 24_000, **changes: Any) -> CodecConfig:
    """SNAC (Siuzdak et al. 2024) for 24, 32 or 44.1 kHz: books of 4,096 at several rates, about 1 to 2.6 kb/s."""
    require(rate_hz in SNAC_SIZES, "rate of SNAC", rate_hz, f"one of {', '.join(map(str, SNAC_SIZES))}")
    size = SNAC_SIZES[rate_hz]
    inner, outer = size["channels"]
    width = inner * 2 ** len(size["strides"])
    shape = {"width": width, "strides": size["strides"], "depthwise": True, "window": size["window"]}
    codebook = CodebookConfig(size=4096, width=8, learning="gradient", normalised=True)
    rates = size["rates"]
    return CodecConfig(
        encoder=DACEncoderConfig(channels=inner, **shape),
        decoder=DACDecoderConfig(channels=outer, noise=True, **shape),
        quantizer=ResidualVQConfig(width=width, books=len(rates), codebook=codebook, projection="each", strides=rates),
        whole=True,
        rate_hz=rate_hz,
    ).replace(**changes)
