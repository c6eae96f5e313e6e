"""Speech-aware systems on drawn weights: the last stage of a published size with parts that are tiny."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.layerwise_qformer import LayerwiseQFormerConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.core.config import Config
from slm_jax.data.examples.transcribed_speech import TranscribedSpeechConfig
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.encoders.ssl_ctc import CTCEncoderConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.nn.lora import LoRAModel
from slm_jax.sequence_models.presets import gpt2, llama
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.serving.transcribed import Transcribed
from slm_jax.systems.catalogue import named_config
from slm_jax.systems.speech_aware.wavllm import HEARD, streams
from slm_jax.systems.speech_aware.wavprompt import END, shrinking
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.training.post.clip_words import Letters
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from tests.contracts.checks import random_params
from tests.shapes import BEATS, ENCODERS

WHISPER = WhisperEncoderConfig(layers=1, width=16, heads=2, hidden=32, max_frames=50)
"""A window of 1 s."""
LLAMA3_MARKS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BODY: dict[str, Any] = {"vocabulary": 264, "layers": 1, "width": 16, "heads": 2, "hidden": 32}
DECODING = AnswerDecoding(max_new=8)


def small_salmonn() -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The third stage, and its parts by path: windows of 17 frames over a Whisper and a BEATs."""
    qformer = QFormerConfig(context_width=32, width=8, heads=2, hidden=16)
    stage = named_config("salmonn:13b").stage("activation")
    assert isinstance(stage, SpeechAwareStageConfig)
    stage = stage.replace(
        join=JoinedConfig(widths=(16, 16)),
        adapter=stage.adapter.replace(width=16, qformer=qformer),
        tokens=SpecialsConfig(),
    )
    assert isinstance(stage.adapter, WindowQFormerConfig) and stage.adapter.window == 17
    beats = BEATS.replace(patch=16, layers=1)
    return stage, {"frozen/encoder": WHISPER, "frozen/encoder_1": beats, "frozen/lm": llama("7b", **BODY, kv_heads=2)}


def small_wavprompt() -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The only stage, and its parts by path."""
    stage = named_config("wavprompt:base").stage("answers")
    assert isinstance(stage, SpeechAwareStageConfig)
    encoder = ENCODERS["waveform"].replace(layers=1, normalise_waveform=False, feature_gradient=0.0)
    lm = gpt2("small", **BODY, max_positions=512, dropout=0.0, attention_dropout=0.0)
    stage = stage.replace(adapter=shrinking(16, 16), tokens=SpecialsConfig(specials=(END,)))
    return stage, {"params/encoder": encoder, "frozen/lm": lm}


def small_desta(size: str = "2.5") -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The stage that learns answers, and its parts by path: two layers of a Whisper."""
    stage = named_config(f"desta:{size}").stage("answers")
    assert isinstance(stage, SpeechAwareStageConfig) and isinstance(stage.adapter, LayerwiseQFormerConfig)
    trunk = QFormerConfig(context_width=16, width=16, heads=2, hidden=24, query_norm=False)
    adapter = stage.adapter.replace(width=16, layers=2, queries=4, qformer=trunk)
    layers = LayersConfig(chosen=(1, 2))
    stage = stage.replace(adapter=adapter, hears=(layers,), tokens=SpecialsConfig(specials=LLAMA3_MARKS))
    return stage, {"frozen/encoder": WHISPER.replace(layers=2), "frozen/lm": llama("7b", **BODY, kv_heads=2)}


def drawn_reader() -> Letters:
    """Something that writes down clips of up to 2 s: a CTC encoder on drawn weights."""
    example = TranscribedSpeechConfig(samples=32_000, labels=8)
    model = CTCEncoderConfig(encoder=ENCODERS["log_mel"], classes=example.classes).make()
    params = random_params(model, jax.random.key(2), jnp.zeros((1, 8_000)), scale=1.0)
    return Letters(CTCReader(model, {"params": params}, example, rows=4))


def small_ltu_as() -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The third stage, and its parts by path: one layer of a Whisper in means of ten frames."""
    stage = named_config("ltu_as:7b").stage("open")
    assert isinstance(stage, SpeechAwareStageConfig)
    adapter = stage.adapter.replace(width=16, layers=1, layer_heads=2)
    stage = stage.replace(hears=(LayersConfig(pool=10, longest=50),), adapter=adapter, tokens=SpecialsConfig())
    return stage, {"frozen/encoder": WHISPER, "frozen/lm": llama("7b", **BODY, kv_heads=2)}


def small_wavllm() -> tuple[SpeechAwareStageConfig, dict[str, Config]]:
    """The second stage, and its parts by path: a Whisper that is cut behind the clip and one on a log-mel front end."""
    second, cut = ENCODERS["log_mel"], WHISPER.replace(cut=True)
    stage = named_config("wavllm:7b").stage("mixed")
    assert isinstance(stage, SpeechAwareStageConfig)
    stage = stage.replace(
        hears=HEARD,
        join=streams(cut, second, (8, 4, 6)),
        adapter=LinearAdapterConfig(width=16),
        prompt_scale=PromptScaleConfig(width=16, hidden=8),
        lora=stage.lora.replace(rank=4, alpha=4.0),
        template=stage.template.replace(default_system=None),
        tokens=SpecialsConfig(),
    )
    return stage, {"frozen/encoder": cut, "frozen/encoder_1": second, "frozen/lm": llama("7b", **BODY, kv_heads=2)}


def drawn(stage: SpeechAwareStageConfig, configs: dict[str, Config], scale: float = 0.3) -> SpeechAwareSystem:
    """The system of a stage; LoRA, where there is any, has an effect, since B is drawn too."""
    model = stage.model(configs)
    samples, ids = jnp.zeros((1, 1, 8_000)), jnp.zeros((1, 2), jnp.int32)
    args = samples, jnp.ones(samples.shape, bool), ids, ids - 1, jnp.ones(ids.shape, bool)
    params = random_params(model, jax.random.key(0), *args, scale=scale)
    variables: dict[str, Any] = {"params": params}
    if isinstance(model, LoRAModel):
        shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), *args)["lora"])
        generator = np.random.default_rng(1)
        variables["lora"] = jax.tree.map(
            lambda leaf: jnp.asarray(0.2 * generator.standard_normal(leaf.shape), jnp.float32), shapes
        )
    layout = stage.layout(model.config, stage.tokens.make())
    return SpeechAwareSystem(model, variables, layout, 16_000, DECODING)


@cache
def drawn_desta(size: str = "2.5") -> SpeechAwareSystem:
    """DeSTA in miniature, with something that writes down clips."""
    return dataclasses.replace(drawn(*small_desta(size)), writer=drawn_reader())


@cache
def drawn_salmonn() -> SpeechAwareSystem:
    """SALMONN in miniature."""
    return drawn(*small_salmonn())


@cache
def drawn_wavprompt() -> SpeechAwareSystem:
    """WavPrompt in miniature."""
    return drawn(*small_wavprompt())


@cache
def drawn_ltu_as() -> Transcribed:
    """LTU-AS in miniature, behind somebody who hears the same in every clip."""
    return Transcribed(drawn(*small_ltu_as()), lambda clips: ["Hello."] * len(clips))


@cache
def drawn_wavllm() -> SpeechAwareSystem:
    """WavLLM in miniature."""
    return drawn(*small_wavllm())
