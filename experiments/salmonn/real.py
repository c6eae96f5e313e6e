"""SALMONN's three stages on real parts: Whisper-base and a small encoder, a window Q-Former, a LLaMA of 15 M.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/salmonn/real.py --workdir runs/salmonn_real
    python -m slm_jax evaluate runs/salmonn_real --utterances 100
    python -m slm_jax generate runs/salmonn_real --prompts q.wav --text "Please describe the audio."

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. In the place of BEATs stands the
small encoder of the tiny twin, which a stage of this run teaches acoustic units. Nobody who is heard in the test split
is heard in training.
"""

import os
from pathlib import Path

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNITS, UNKNOWN_SPEAKERS, units_encoder
from slm_jax.systems.speech_aware import salmonn
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ = WEIGHTS / "stories15m", 288
ears = WhisperEncoderConfig(trim=True), log_mel_tiny()
first = SpeechAwareStageConfig(
    name="pretraining",
    parts=(
        PartSource(path="frozen/encoder", source=str(WEIGHTS / "whisper-base"), take="encoder", expect=ears[0]),
        PartSource(path="frozen/encoder_1", source=f"stage:{UNITS}", expect=ears[1]),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    join=JoinedConfig(widths=(ears[0].width, ears[1].width)),
    adapter=WindowQFormerConfig(
        width=READ,
        qformer=QFormerConfig(
            context_width=ears[0].width + ears[1].width,
            width=192,
            heads=4,
            hidden=768,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        window=5,
        tail="pad",
    ),
    lora=salmonn.LORA.replace(rank=16, dropout=0.0),
    template=STORIES,
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=salmonn.FIRST,
    clip_s=5.0,
    length=144,
    train=TrainConfig(steps=1800, evaluate_every=300),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.05),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=2.5, question_hours=0.5, instruction_hours=0.6, styles=("rate", "energy"))
stages = (*units_encoder(ears[1]), *salmonn.three_stages(first, 700, 20, 1e-4))
whole_again = AnswerDecoding(max_new=60, lora=1 / salmonn.LESS)
"""So small a text model hears through LoRA: counted half, as while it was activated, it hears little."""
config = salmonn.whole_run("salmonn_real", corpus, stages, whole_again)
