"""A unit speech LM on drawn weights: all its parts are real, and nobody trained them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import pitch_predictor
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.quantizers.postprocess import Postprocess
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.text.vocabulary import Vocabulary
from tests.contracts.checks import random_params

HOP = 320


def drawn_unit_speech_lm(
    units: int = 8, vocabulary: int = 16, width: int = 16, scale: float = 0.3, **changes
) -> UnitSpeechLM:
    """MFCC, random centroids, one layer of language model, a narrow vocoder.

    `width` and `scale`: of the language model and its weights.
    """
    rng = np.random.default_rng(0)
    centroids = jnp.asarray(rng.normal(size=(units, 39)) * 10, jnp.float32)
    lm = DecoderConfig(vocabulary=vocabulary, layers=1, width=width, heads=2, hidden=32, positions="rope").make()
    vocoder = UnitVocoderConfig(
        units=units,
        unit_dim=8,
        generator=ISTFTVocoderConfig(widths=(8, 8), blocks=(1, 1)),
        pitch_predictor=pitch_predictor(8),
    ).make()
    parts = {
        "tokenizer": PhoneticTokenizer(MFCCFeaturesConfig(), None, Postprocess(jnp.zeros(39), jnp.eye(39)), centroids),
        "vocabulary": Vocabulary(ranges=(("units", units),)),
        "lm": lm,
        "lm_params": random_params(lm, jax.random.key(0), jnp.zeros((1, 2), jnp.int32), scale=scale),
        "vocoder": vocoder,
        "vocoder_params": meta.unbox(jax.jit(partial(initialise, vocoder))(jax.random.key(1)))["params"],
    }
    return UnitSpeechLM(**{**parts, **changes})


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise at 16 kHz whose colour changes four times a second, so that its units do."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(0, round(seconds * 16_000), 4000):
        width = int(rng.integers(1, 40))
        smooth = np.convolve(rng.normal(size=4000 + width), np.ones(width) / width)[:4000]
        pieces.append(smooth * 10.0 ** rng.uniform(-2.5, -0.5))
    return np.concatenate(pieces)[: round(seconds * 16_000)].astype(np.float32)
