"""A cascade of three models on drawn weights: all its parts are real, and nobody trained them."""

import jax
import jax.numpy as jnp

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.generation.by_cascade import Model
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.schemes.cascade import audiolm
from slm_jax.sequence_models.presets import audiolm_stage
from slm_jax.serving.cascade_speech_lm import CascadeDecoding, CascadeSpeechLM
from tests.contracts.checks import random_params
from tests.serving.drawn import drawn_unit_speech_lm

UNITS, CODES, BOOKS, COARSE = 8, 16, 3, 2
CODEC = CodecConfig(
    encoder=SpectralEncoderConfig(width=8, inner=8, blocks=1, kernel=3, mels=16, n_fft=320),
    decoder=SpectralDecoderConfig(width=8, inner=8, blocks=1, kernel=3, n_fft=640),
    quantizer=ResidualVQConfig(width=8, books=BOOKS, codebook=CodebookConfig(size=CODES, width=8)),
    whole=True,
    rate_hz=16_000,
)


def drawn_cascade(**changes) -> CascadeSpeechLM:
    """MFCC units, a narrow codec, and three models of one layer."""
    tokenizer, codec = drawn_unit_speech_lm(units=UNITS).tokenizer, CODEC.make()
    variables = jax.tree.map(lambda leaf: leaf, codec.init(jax.random.key(0), jnp.zeros((1, 3200))))
    codes = CodecTokenizer(CODEC, variables)
    cascade = audiolm(tokenizer.spec, codes.spec, COARSE, chunk_s=0.2)
    sizes = [cascade.vocabulary(number).size for number in range(3)]
    lms = [audiolm_stage(size, layers=1, width=16, heads=2, hidden=32).make() for size in sizes]
    models = tuple(
        Model(lm, random_params(lm, jax.random.key(i), jnp.zeros((1, 2), jnp.int32))) for i, lm in enumerate(lms)
    )
    parts = {
        "tokenizer": tokenizer,
        "codec": codes,
        "cascade": cascade,
        "models": models,
        "decoding": CascadeDecoding(seconds=0.4),
    }
    return CascadeSpeechLM(**{**parts, **changes})
