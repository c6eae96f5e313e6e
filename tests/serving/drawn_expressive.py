"""Units, pitch and style in one stream on drawn weights."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.core.token_spec import single
from slm_jax.data.examples.one_stream import OneStream, StreamOf
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig, initialise
from slm_jax.serving.one_stream_speech_lm import OneStreamSpeechLM
from slm_jax.systems.speech_text import spirit_lm
from slm_jax.text.expanded_vocabulary import ExpandedVocabulary
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import SpecialsConfig
from tests.contracts.checks import random_params
from tests.serving.drawn_one_stream import TEXT, drawn_spirit_lm
from tests.serving.drawn_units import UNITS

CODES, CLASSES = 4, 3


class Loudness:
    """A tokenizer of one stream: how loud every stretch of `hop` samples is, in `levels`."""

    def __init__(self, name: str, levels: int, hop: int) -> None:
        self.spec = single(name, levels, hop, 16_000, columns=(name,))

    def frame_count(self, n: int) -> int:
        return n // self.spec.hop

    def encode_all(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [self._levels(samples) for samples in waveforms]

    def _levels(self, samples: np.ndarray) -> np.ndarray:
        frames = samples[: len(samples) // self.spec.hop * self.spec.hop].reshape(-1, self.spec.hop)
        level = np.sqrt(np.square(frames).mean(1)) / 0.2
        return np.clip(level * self.spec.units, 0, self.spec.units - 1).astype(np.int32)


def drawn_expressive() -> OneStreamSpeechLM:
    """SpiRit-LM's forms over three streams, and a voice that reads all of them."""
    base, pitch, style = drawn_spirit_lm(), Loudness("pitch", CODES, 1280), Loudness("style", CLASSES, 16_000)
    ranges = (("units", UNITS), ("pitch", pitch.spec.units), ("style", CLASSES))
    vocabulary = ExpandedVocabulary(text=TEXT, specials=spirit_lm.MARKS, ranges=ranges)
    rates = (50.0, pitch.spec.frames_per_second, style.spec.frames_per_second)
    streams = tuple(
        StreamOf(name, name, rate, once=name != "style") for (name, _), rate in zip(ranges, rates, strict=True)
    )
    vocoder = UnitVocoderConfig(
        units=UNITS, unit_dim=8, pitch_tokens=pitch.spec.units, pitch_token_dim=8, style_tokens=CLASSES,
        style_token_dim=8, pitch=False, pitch_predictor=None,
        generator=ISTFTVocoderConfig(widths=(8, 8), blocks=(1, 1), excitation="none"),
    ).make()  # fmt: skip
    rows = TEXT + len(spirit_lm.MARKS) + sum(size for _, size in ranges)
    lm = base.lm.config.replace(vocabulary=rows).make()
    params = random_params(lm, jax.random.key(0), jnp.zeros((1, 2), jnp.int32), scale=0.4)
    return dataclasses.replace(
        base,
        tokenizers=(*base.tokenizers, pitch, style),
        stream=OneStream(JointTokens(SpecialsConfig().make(), vocabulary), streams),
        lm=lm,
        lm_params=params,
        vocoder=vocoder,
        vocoder_params=meta.unbox(jax.jit(partial(initialise, vocoder))(jax.random.key(1)))["params"],
    )


def swelling(seconds: float) -> np.ndarray:
    """Noise that swells and fades."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.2 * np.abs(np.sin(2.3 * time)) * noise).astype(np.float32)
