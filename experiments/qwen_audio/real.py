"""Qwen-Audio's two stages on real parts: Whisper-base's encoder, a LLaMA of 15 M that learns the tags.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python experiments/qwen_audio/run.py runs/qwen_audio_real --real

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set; `run.py` adds the tags to the text
model there. The encoder learns to speak to layers that stay as they are (the table, which has never read a tag, learns
too); then the language model learns from the encoder, which stays as it is. Nobody who is heard in the test split is
heard in training.
"""

import os
from pathlib import Path

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ends import EndsConfig
from slm_jax.adapters.pool import PoolAdapterConfig
from slm_jax.core.part_source import PartSource
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.interop.more_tokens import with_tokens
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.systems.speech_aware import qwen_audio
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import GroupConfig, OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, TAGGED = WEIGHTS / "stories15m", WEIGHTS / "stories15m_tags"
READ = 288
OPTIMIZER = OptimizerConfig(
    learning_rate=2e-4,
    warmup_steps=40,
    betas=(0.9, 0.98),
    weight_decay=0.05,
    groups=(GroupConfig(name="new", match="params/(adapter|lm/tokens)/", learning_rate=1e-3),),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=2.5, instruction_hours=0.8, styles=("energy", "register"))
encoder = WhisperEncoderConfig(trim=True)
tiny = qwen_audio.config("tiny")
first, second = tiny.stage("pretraining"), tiny.stage("chat")
assert isinstance(first, SpeechAwareStageConfig) and isinstance(second, SpeechAwareStageConfig)  # for the type checker
pretraining = first.replace(
    parts=(
        PartSource(
            path="params/encoder",
            source=str(WEIGHTS / "whisper-base"),
            take="encoder",
            frozen=False,
            expect=encoder.replace(masks=qwen_audio.MASKS),
        ),
        PartSource(path="params/lm", source=str(TAGGED), frozen=False),
    ),
    adapter=ChainConfig(parts=(PoolAdapterConfig(width=READ), EndsConfig(width=READ))),
    tokens=TokenizerFileConfig(path=str(TAGGED / "tokenizer.json")),
    clip_s=5.0,
    length=200,
    train=TrainConfig(steps=400, evaluate_every=100),
    optimizer=OPTIMIZER,
)
learnt = PartSource(path="params/lm", source="stage:pretraining", take="lm", frozen=False)
chat = qwen_audio.chatting(pretraining, learnt).replace(
    tasks=second.tasks, length=240, train=TrainConfig(steps=250, evaluate_every=125)
)
config = speech_aware_run("qwen_audio_real", corpus, (pretraining, chat), decoding=AnswerDecoding(max_new=40))


def prepared() -> SpeechAwareConfig:
    """The run, once the text model knows the tags."""
    if not TAGGED.is_dir():
        with_tokens(str(LM), TAGGED, qwen_audio.TOKENS.specials)
    return config
