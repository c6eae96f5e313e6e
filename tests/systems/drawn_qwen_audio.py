"""Qwen-Audio in its smallest form on drawn weights."""

import jax
import jax.numpy as jnp

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ends import EndsConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLMConfig
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.data.examples.speech_prompts import PromptLayout
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.systems.speech_aware.qwen_audio import TOKENS
from slm_jax.text.templates import QWEN_AUDIO_CHAT
from tests.contracts.checks import random_params

SHAPE = {"layers": 1, "width": 16, "heads": 2, "hidden": 64}


def drawn_model() -> SpeechAwareLMConfig:
    """All parts, one layer each; clips of up to three seconds."""
    encoder = WhisperEncoderConfig(
        mel=whisper_log_mel(16), max_frames=150, trim=True, mel_frames="whole", final_norm=False, **SHAPE
    )
    adapter = ChainConfig(parts=(PoolAdapterConfig(width=16), EndsConfig(width=16)))
    lm = llama(vocabulary=TOKENS.make().size, kv_heads=2, qkv_bias=True, **SHAPE)
    return SpeechAwareLMConfig(encoders=(encoder,), adapter=adapter, lm=lm)


def drawn_qwen_audio() -> SpeechAwareSystem:
    """The serving form."""
    config = drawn_model()
    samples, ids = jnp.zeros((1, 1, 3200)), jnp.zeros((1, 2), jnp.int32)
    inputs = (samples, jnp.ones(samples.shape, bool), ids, ids - 1, jnp.ones(ids.shape, bool))
    params = random_params(config.make(), jax.random.key(1), *inputs, scale=0.5)
    layout = PromptLayout(TOKENS.make(), QWEN_AUDIO_CHAT, config.frames_out, window=config.window)
    return SpeechAwareSystem(config.make(), {"params": params}, layout, decoding=AnswerDecoding(max_new=6))
