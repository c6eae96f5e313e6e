"""Text and units in one stream on drawn weights: all parts are real, and nobody trained them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.data.examples.one_stream import OneStream, StreamOf
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import pitch_predictor
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.one_stream_speech_lm import Form, OneStreamDecoding, OneStreamSpeechLM
from slm_jax.systems.speech_text import speechgpt, spirit_lm
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import SpecialsConfig
from tests.contracts.checks import random_params
from tests.serving.drawn_units import UNITS, drawn_tokenizer

TEXT, ROWS = 259, 280
"""Ids of bytes and their specials; rows of the table, of which the last few are nobody's."""


def drawn_stream(marks: tuple[str, ...]) -> OneStream:
    """Bytes, these marks, eight units."""
    vocabulary = ExpandedVocabulary(text=TEXT, specials=marks, ranges=(("units", UNITS),))
    return OneStream(JointTokens(SpecialsConfig().make(), vocabulary), (StreamOf("units", "units", 50.0),))


def drawn_vocoder() -> dict[str, Any]:
    """A narrow voice for eight units, as fields of a system."""
    vocoder = UnitVocoderConfig(
        units=UNITS,
        unit_dim=8,
        generator=ISTFTVocoderConfig(widths=(8, 8), blocks=(1, 1)),
        pitch_predictor=pitch_predictor(8),
    ).make()
    params = meta.unbox(jax.jit(partial(initialise, vocoder))(jax.random.key(1)))["params"]
    return {"vocoder": vocoder, "vocoder_params": params}


def drawn_one_stream(forms: tuple[Form, ...], marks: tuple[str, ...], scored: tuple[str, str]) -> OneStreamSpeechLM:
    """A layer of language model, and forms of a system."""
    lm = llama("7b", vocabulary=ROWS, layers=1, width=16, heads=2, kv_heads=1, hidden=24).make()
    params = random_params(lm, jax.random.key(0), jnp.zeros((1, 2), jnp.int32), scale=0.4)
    params["head_kernel"] = params["head_kernel"].at[:, TEXT:].multiply(2.0)  # so that units come as well as bytes
    return OneStreamSpeechLM(
        tokenizers=(drawn_tokenizer(),),
        stream=drawn_stream(marks),
        lm=lm,
        lm_params=params,
        forms=forms,
        scored=scored,
        decoding=OneStreamDecoding(max_new=24),
        **drawn_vocoder(),
    )


def drawn_speechgpt() -> OneStreamSpeechLM:
    """SpeechGPT's forms and marks."""
    return drawn_one_stream(speechgpt.FORMS, speechgpt.MARKS, speechgpt.SCORED)


def drawn_spirit_lm() -> OneStreamSpeechLM:
    """Those of SpiRit-LM."""
    return drawn_one_stream(spirit_lm.FORMS, spirit_lm.MARKS, spirit_lm.SCORED)


def random_units(count: int, seed: int = 0) -> np.ndarray:
    """So many units, int32."""
    return np.random.default_rng(seed).integers(0, UNITS, count).astype(np.int32)
