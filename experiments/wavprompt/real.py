"""WavPrompt on real parts: Whisper-base's encoder, tuned, writes prompts for a frozen LLaMA of 15 M parameters.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/wavprompt/real.py --workdir runs/wavprompt_real
    python -m slm_jax evaluate runs/wavprompt_real --utterances 100
    python -m slm_jax generate runs/wavprompt_real --prompts q.wav --text "what did the speaker say? "

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. No self-supervised encoder can be
had without an account: Whisper's stands in its place, over the length of the clip alone. The text model reads `<s>`
first, as it always did. Nobody who is heard in the test split is heard in training.
"""

import os
from pathlib import Path

from slm_jax.core.part_source import PartSource
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNKNOWN_SPEAKERS
from slm_jax.systems.recipes.speech_aware import speech_aware_run
from slm_jax.systems.speech_aware import wavprompt
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import GroupConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ, STEPS = WEIGHTS / "stories15m", 288, 700
encoder = WhisperEncoderConfig(trim=True)
answers = SpeechAwareStageConfig(
    name="answers",
    parts=(
        PartSource(
            path="params/encoder", source=str(WEIGHTS / "whisper-base"), take="encoder", expect=encoder, frozen=False
        ),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    adapter=wavprompt.shrinking(encoder.width, READ),
    template=STORIES.replace(between="", earlier_end=""),
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=wavprompt.TRANSCRIPTION,
    clip_s=5.0,
    length=80,
    train=TrainConfig(steps=STEPS, evaluate_every=175),
    batches=PipelineConfig(batch=8),
    optimizer=wavprompt.tri_stage(2e-4, STEPS).replace(
        clip=1.0, groups=(GroupConfig(name="adapter", match="params/adapter/", learning_rate=1e-3),)
    ),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=3.5)
config = speech_aware_run("wavprompt_real", corpus, (answers,), decoding=AnswerDecoding(max_new=40))
