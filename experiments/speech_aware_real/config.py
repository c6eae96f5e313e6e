"""Real Whisper-base, an adapter, real SmolLM2-135M with LoRA: transcripts, questions about notes, instructions.

    python experiments/fetch/real_weights.py weights whisper-base smollm2-135m-instruct
    python -m slm_jax train experiments/speech_aware_real/config.py --workdir runs/real
    python -m slm_jax evaluate runs/real
    python experiments/speech_aware_real/compare.py runs/real

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. Speakers, sentences and questions of
the test split are heard in no other split. The stage `written` tunes the same language model with as much LoRA on the
same tasks in writing: what the cascade and the bound of `compare.py` answer with.
"""

import os
from pathlib import Path

from slm_jax.adapters.mlp import MLPAdapterConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig, SpeechTaskConfig
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.nn.lora import LoRAConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM = WEIGHTS / "smollm2-135m-instruct"
TASKS = MixtureConfig(
    parts=(
        PartConfig(
            name="transcription",
            weight=0.5,
            example=AskedTaskConfig(asks=("Write down what is said.", "Transcribe the recording.")),
        ),
        PartConfig(name="questions", weight=0.25, example=OpenBookTaskConfig()),
        PartConfig(name="instructions", weight=0.25, example=AnsweredTaskConfig(kinds=("instruction",))),
    )
)
written_tasks = tuple(
    part.replace(example=WrittenTaskConfig(task=part.example))
    for part in TASKS.parts
    if isinstance(part.example, SpeechTaskConfig)
)
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
    adapter=MLPAdapterConfig(width=576, hidden=1024, stack=5, norm=True),
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=TASKS,
    lora=LoRAConfig(targets="lm/.*/attention/(query|value)", rank=16, alpha=32.0),
    clip_s=8.0,
    length=80,
    train=TrainConfig(steps=1100, evaluate_every=275),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, betas=(0.9, 0.98)),
)
written = answers.replace(
    name="written",
    tasks=MixtureConfig(parts=written_tasks),
    clip_s=0.5,  # nothing is heard
    length=72,
    cache=False,
    train=answers.train.replace(steps=200),
)
corpus = UNKNOWN_SPEAKERS.replace(speakers=96, hours=6.0, question_hours=1.2, instruction_hours=1.2)
decoding = AnswerDecoding(max_new=48)
config = speech_aware_run("speech_aware_real", corpus, (written, answers), decoding=decoding)
