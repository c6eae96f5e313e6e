"""BESTOW on real parts: Whisper-base's encoder chunk by chunk, words of a LLaMA of 15 M parameters that listen to it.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/bestow/real.py --workdir runs/bestow_real
    python -m slm_jax evaluate runs/bestow_real --utterances 100
    python -m slm_jax generate runs/bestow_real --prompts q.wav --text "Write down what is said."

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. No FastConformer can be had without
an account: Whisper's encoder stands in its place and hears 0.8 s at a time with 0.4 s before them, so that what it
gives is there as soon as a chunk is heard. One stage learns to write at all paces, each row at one that it draws:
whole clips first, wait-k, a chunk and two ids. Clips of up to 2.8 s; nobody who is heard in the test split is heard in
training.
"""

import os
from pathlib import Path

from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.examples.speech_tasks import AskedTaskConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.paces import PacesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.nn.pacing import PaceConfig
from slm_jax.sequence_models.listener import ListenerConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ = WEIGHTS / "stories15m", 288
FRAMES = 8
"""Vectors of a chunk of 0.8 s."""
PACES = (PaceConfig(chunk=FRAMES, wait=2, tokens=3), PaceConfig(chunk=FRAMES, wait=1, tokens=2))
"""The world speaks 3.9 ids a second, 3.1 in a chunk."""
answers = SpeechAwareStageConfig(
    name="answers",
    parts=(
        PartSource(
            path="frozen/encoder",
            source=str(WEIGHTS / "whisper-base"),
            take="encoder",
            expect=WhisperEncoderConfig(trim=True),
        ),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    rolling=(0.8, 0.4),
    adapter=MLPAdapterConfig(width=READ, hidden=1024, stack=5, norm=True, tail="pad"),
    listener=ListenerConfig(width=READ, heads=8, hidden=576, sinusoids=True, gain=0.1, dropout=0.0, init_scale=0.06),
    template=STORIES.replace(between="", earlier_end=""),
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=AskedTaskConfig(kinds=("sentence",), asks=("Write down what is said. ",)),
    lora=LoRAConfig(targets="lm/.*/(attention/(query|key|value|out)|mlp/(gate|up|down))", rank=16, alpha=32.0),
    clip_s=2.8,
    length=32,
    paces=(None, *PACES),
    train=TrainConfig(steps=420, evaluate_every=60),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, betas=(0.9, 0.98)),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=1.2)
judges = (
    TasksJudge(tasks=answers.mixture, longest_s=answers.clip_s),
    PacesJudge(tasks=answers.mixture, longest_s=answers.clip_s, paces=PACES),
    LossesJudge(),
)
decoding = AnswerDecoding(max_new=24)
config = speech_aware_run("bestow_real", corpus, (answers,), decoding=decoding, judges=judges)
