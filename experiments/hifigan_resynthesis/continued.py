"""HiFi-GAN V1 as published, trained on: from one English reader to the many voices of a game in Czech.

    python experiments/fetch/real_weights.py weights --models hifigan-v1-ljspeech
    python experiments/fetch/real_speech.py data/real_speech --sets fillets-cs
    python -m slm_jax train experiments/hifigan_resynthesis/continued.py --workdir runs/continued
    python -m slm_jax convert runs/continued/stages/vocoder runs/continued/hifigan --to torch
    python experiments/hifigan_resynthesis/resynthesise.py runs/continued/hifigan CLIPS ... --out runs/continued

Spectra alone, without judges, which two cores can afford. `SLM_JAX_REAL_SPEECH` and `SLM_JAX_REAL_WEIGHTS` name the
folders of recordings and weights, `data/real_speech` and `weights` unless they are set.
"""

import os
from pathlib import Path

from slm_jax.data.corpus import ManifestConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.objectives.vocoder import VocoderLossConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.mel_vocoder import MelVocoderStageConfig
from slm_jax.training.stages import RunConfig

SPEECH = Path(os.environ.get("SLM_JAX_REAL_SPEECH", "data/real_speech"))
WEIGHTS = Path(os.environ.get("SLM_JAX_REAL_WEIGHTS", "weights"))
vocoder = MelVocoderStageConfig(
    name="vocoder",
    weights=str(WEIGHTS / "hifigan-v1-ljspeech"),
    segment_s=0.5,
    losses=VocoderLossConfig(resolutions=((2048, 512, 80), (1024, 256, 80), (512, 128, 64), (256, 64, 32))),
    train=TrainConfig(steps=300, evaluate_every=50),
    batches=PipelineConfig(batch=4),
    optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.8, 0.99), warmup_steps=20, weight_decay=0.01),
)
corpus = ManifestConfig(path=str(SPEECH / "fillets-cs" / "manifest.jsonl"), rate_hz=22_050)
config = RunConfig(name="hifigan_continued", corpus=corpus, stages=(vocoder,))
