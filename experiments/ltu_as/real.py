"""LTU-AS's curriculum on real parts: all layers of Whisper-base, TLTR, a LLaMA of 15 M parameters with LoRA.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/ltu_as/real.py --workdir runs/ltu_as_real
    python experiments/ltu_as/judge.py runs/ltu_as_real
    python -m slm_jax generate runs/ltu_as_real --prompts q.wav --text "Closed-ended question: How loud is the speech?"

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. In training the transcripts are the
world's own words; those of `generate` are Whisper-base's. Nobody who is heard in the test split is heard in training.
The loss is of answers alone, unlike the published one: a label is one word in fifty of a row (see the README).
"""

import os
from pathlib import Path

from slm_jax.adapters.tltr import TLTRConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.speech_aware import ltu_as
from slm_jax.text.templates import LTU_AS
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ, STEPS = WEIGHTS / "stories15m", 288, (100, 400, 400)
encoder = WhisperEncoderConfig(trim=True)
first = SpeechAwareStageConfig(
    name=ltu_as.FIRST,
    parts=(
        PartSource(path="frozen/encoder", source=str(WEIGHTS / "whisper-base"), take="encoder", expect=encoder),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    hears=(ltu_as.HEARD,),
    adapter=TLTRConfig(width=READ, layers=encoder.layers),
    kept=ltu_as.TLTR_ALONE,
    template=LTU_AS.replace(assistant=("### Response:\n", "<s>")),
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=ltu_as.CLOSED_ENDED,
    targets="answers",
    clip_s=5.0,
    length=144,
    cache=True,
    train=TrainConfig(steps=STEPS[0], evaluate_every=100),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, betas=(0.9, 0.98)),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=1.0, instruction_hours=0.3, styles=ltu_as.STYLES)
lora = ltu_as.LORA.replace(rank=16, alpha=32.0, dropout=0.0)
stages = ltu_as.curriculum(first, STEPS[1:], (1e-3, 1e-3), lora)
config = ltu_as.whole_run("ltu_as_real", corpus, stages, AnswerDecoding(max_new=60), str(WEIGHTS / "whisper-base"))
