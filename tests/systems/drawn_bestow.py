"""BESTOW on drawn weights: the last stage of its tiny twin with parts that are smaller yet."""

from functools import cache

from slm_jax.adapters.conformer import ConformerAdapterConfig
from slm_jax.core.config import Config
from slm_jax.encoders.fastconformer import FastConformerConfig
from slm_jax.encoders.preemphasised_mel import PreemphasisedMelConfig
from slm_jax.nn.conformer import ConformerShape
from slm_jax.sequence_models.listener import ListenerConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import SpeechAwareSystem
from slm_jax.systems.catalogue import named_config
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from tests.systems.drawn import BODY, drawn

CHUNKED = {"layers": 1, "width": 16, "heads": 2, "hidden": 32, "kernel": 3, "norm": "layer", "chunk": 2, "left": 1}
ENCODER = FastConformerConfig(
    mel=PreemphasisedMelConfig(mels=20, normalise="none", causal=True), factor=4, channels=4, **CHUNKED
)
"""Chunks of 1,280 samples."""


def small_bestow() -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The stage that learns to write while it reads, and its parts by path."""
    stage = named_config("bestow:tiny").stage("streaming")
    assert isinstance(stage, SpeechAwareStageConfig)
    stage = stage.replace(
        adapter=ConformerAdapterConfig(width=16, inner=ConformerShape(**CHUNKED)),
        listener=ListenerConfig(width=16, layers=2, heads=2, sinusoids=True, gain=0.5, init_scale=0.3),
        tokens=SpecialsConfig(),
    )
    return stage, {"frozen/encoder": ENCODER, "frozen/lm": llama("7b", **BODY, kv_heads=2)}


@cache
def drawn_bestow() -> SpeechAwareSystem:
    """BESTOW in miniature."""
    return drawn(*small_bestow())
