"""WavLLM's two stages on real parts: Whisper-base and a small encoder, a LLaMA of 15 M with LoRA and prompt adapter.

    python experiments/fetch/real_weights.py weights --models whisper-base stories15m
    python -m slm_jax train experiments/wavllm/real.py --workdir runs/wavllm_real
    python experiments/wavllm/judge.py runs/wavllm_real
    python -m slm_jax generate runs/wavllm_real --prompts q.wav --text "Write down what is said. Then: How loud is it?"

`SLM_JAX_REAL_WEIGHTS` names the folder of the weights, `weights` unless it is set. No WavLM can be had without an
account: in its place stands the small encoder of the tiny twin, which a stage of this run teaches acoustic units.
Nobody who is heard in the test split is heard in training. Features are kept.
"""

import os
from pathlib import Path

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.core.part_source import PartSource
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.recipes.small_parts import UNITS, UNKNOWN_SPEAKERS, units_encoder
from slm_jax.systems.speech_aware import wavllm
from slm_jax.text.templates import STORIES
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig

WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
LM, READ = WEIGHTS / "stories15m", 288
ears = WhisperEncoderConfig(trim=True), log_mel_tiny()
first = SpeechAwareStageConfig(
    name=wavllm.FIRST,
    parts=(
        PartSource(path="frozen/encoder", source=str(WEIGHTS / "whisper-base"), take="encoder", expect=ears[0]),
        PartSource(path="frozen/encoder_1", source=f"stage:{UNITS}", expect=ears[1]),
        PartSource(path="frozen/lm", source=str(LM)),
    ),
    hears=wavllm.HEARD,
    join=wavllm.streams(*ears, (256, 128, 256)),
    adapter=LinearAdapterConfig(width=READ),
    lora=wavllm.LORA.replace(rank=16, alpha=16.0, dropout=0.0),
    template=STORIES,
    tokens=TokenizerFileConfig(path=str(LM / "tokenizer.json")),
    tasks=wavllm.SINGLE,
    clip_s=5.0,
    length=144,
    cache=True,
    train=TrainConfig(steps=500, evaluate_every=100),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, betas=(0.9, 0.98)),
)
corpus = UNKNOWN_SPEAKERS.replace(hours=2.0, instruction_hours=0.6, styles=wavllm.STYLES)
scale = PromptScaleConfig(width=READ, hidden=72)
stages = (*units_encoder(ears[1], steps=100), *wavllm.two_stages(first, scale, 200, 48))
config = wavllm.whole_run("wavllm_real", corpus, stages, AnswerDecoding(max_new=60))
