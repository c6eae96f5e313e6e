"""A speech-aware encoder-decoder on drawn weights: all its parts are real, and nobody trained them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.sequence_models.t5 import t5_v1_1
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import T5
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

WIDTH = 16
TOKENS = SpecialsConfig()
LM = t5_v1_1(
    vocabulary=264,
    layers=2,
    width=WIDTH,
    heads=2,
    head_width=10,
    hidden=24,
    relative_bias=RelativeBiasConfig(buckets=8, max_distance=12),
)
SPOKEN = CTCAdapterConfig(width=12, segments=CTCSegmentsConfig(vocabulary=4, rule="spoken_frames", keep=0.8))
LAYERS = TransformerAdapterConfig(width=WIDTH, layers=2, heads=2, hidden=20)
CONFIG = SpeechAwareLMConfig(encoders=(ENCODERS["log_mel"],), adapter=ChainConfig(parts=(SPOKEN, LAYERS)), lm=LM)


def drawn_variables(config: SpeechAwareLMConfig = CONFIG, scale: float = 0.4) -> dict[str, Any]:
    """Variables of a model."""
    samples, ids = jnp.zeros((1, 1, 4000)), jnp.zeros((1, 2), jnp.int32)
    args = (samples, jnp.ones(samples.shape, bool), ids, ids - 1, jnp.ones(ids.shape, bool))
    return {"params": random_params(config.make(), jax.random.key(1), *args, scale=scale)}


def drawn_slm(config: SpeechAwareLMConfig = CONFIG, **changes: Any) -> SpeechAwareSystem:
    """The system: a T5 that reads the frames which a CTC head does not call blank."""
    layout = PromptLayout(TOKENS.make(), T5, config.frames_out, window=config.window)
    decoding = AnswerDecoding(max_new=12)
    return SpeechAwareSystem(config.make(), drawn_variables(config), layout, decoding=decoding, **changes)


def voice(seconds: float, seed: int = 0, rate_hz: int = 16_000) -> Speech:
    """Something like speech: a buzz that rises."""
    time, rng = np.arange(round(seconds * rate_hz)) / rate_hz, np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * k * (110 + 60 * rng.random() + 40 * time) * time) / k for k in range(1, 8))
    return Speech((0.1 * wave).astype(np.float32), rate_hz)


def asked(*parts: Speech | str, answer: str | None = None) -> Conversation:
    """A message of the user, and what is answered."""
    said = Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))
    return (said,) if answer is None else (said, Message("assistant", (Text(answer),)))
