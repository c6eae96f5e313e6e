"""A small speech-aware LM on drawn weights: all its parts are real, and nobody trained them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.nn.lora import LoRAConfig, with_lora
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.serving.speech_aware import SpeechAwareSystem
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN
from slm_jax.training.post.speech_aware_form import new_variables
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

RATE_HZ = 16_000
WIDTH = 16
TOKENS = SpecialsConfig()
LM = DecoderConfig(vocabulary=264, layers=2, width=WIDTH, heads=2, hidden=32, positions="rope", gated=True)
CONFIG = SpeechAwareLMConfig(encoders=(ENCODERS["log_mel"],), adapter=LinearAdapterConfig(width=WIDTH, stack=4), lm=LM)
LORA = LoRAConfig(targets="lm/.*/attention/(query|value)", rank=2)


def drawn(config: SpeechAwareLMConfig = CONFIG, scale: float = 0.5) -> dict[str, Any]:
    """Variables of a model without LoRA."""
    samples = jnp.zeros((1, 1, config.window or RATE_HZ // 4))
    ids = jnp.zeros((1, 2), jnp.int32)
    args = (samples, jnp.ones(samples.shape, bool), ids, ids - 1, jnp.ones(ids.shape, bool))
    return {"params": random_params(config.make(), jax.random.key(1), *args, scale=scale)}


def layout_of(config: SpeechAwareLMConfig = CONFIG, **changes: Any) -> PromptLayout:
    """Bytes behind special tokens, in the plain template."""
    return PromptLayout(TOKENS.make(), PLAIN, config.frames_out, window=config.window, **changes)


def drawn_speech_aware(scale: float = 0.5, **changes: Any) -> SpeechAwareSystem:
    """The system, with LoRA that has an effect."""
    model = with_lora(CONFIG.make(), LORA)
    return SpeechAwareSystem(model, drawn(scale=scale) | {"lora": drawn_lora(model)}, layout_of(), **changes)


def drawn_lora(model: Any) -> Any:
    """Adapters that have an effect."""
    shapes = jax.eval_shape(lambda key: new_variables(model, key), jax.random.key(0))["lora"]
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), meta.unbox(shapes))


def voice(seconds: float, seed: int = 0, rate_hz: int = RATE_HZ) -> Speech:
    """Something like speech: a buzz that rises."""
    time, rng = np.arange(round(seconds * rate_hz)) / rate_hz, np.random.default_rng(seed)
    wave = sum(np.sin(2 * np.pi * k * (110 + 60 * rng.random() + 20 * time) * time) / k for k in range(1, 8))
    return Speech((0.1 * wave).astype(np.float32), rate_hz)


def asked(*parts: Speech | str, answer: str | None = None) -> Conversation:
    """A message of the user, and what is answered."""
    said = Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))
    return (said,) if answer is None else (said, Message("assistant", (Text(answer),)))
