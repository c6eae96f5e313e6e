"""A codec for a world that it knows: four voices, eight books for 4 kb/s; then with judges, and as long without them.

    python -m slm_jax train experiments/codec_small/world.py --workdir runs/codec_world
    python -m slm_jax evaluate runs/codec_world --utterances 16
    python experiments/codec_small/compare.py runs/codec_world --utterances 16 --out runs/codec_world/compared

`evaluate` judges `longer`, `compare.py` every stage. The form is that of `config.py`; nothing changes what it hears:
sentences alone are held out. `judged` and `unjudged` go on from `longer` for as many steps with the same rate, so that
the judges alone tell them apart.
"""

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.spectral import SpectralDecoderConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.encoders.spectral import SpectralEncoderConfig
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.systems.recipes.codec_run import CodecRunConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig

known = CodecStageConfig(
    name="known",
    model=CodecConfig(
        encoder=SpectralEncoderConfig(),
        decoder=SpectralDecoderConfig(),
        quantizer=ResidualVQConfig(width=64, books=8, codebook=CodebookConfig(size=1024, width=64), dropout=0.4),
        whole=True,
        rate_hz=16_000,
    ),
    segment_s=0.8,
    train=TrainConfig(steps=6250, evaluate_every=500),
    batches=PipelineConfig(batch=12),
    optimizer=OptimizerConfig(
        learning_rate=2e-3, betas=(0.8, 0.99), warmup_steps=100, weight_decay=0.01, final_fraction=0.1
    ),
)
longer = known.replace(
    name="longer",
    start_from="known",
    train=TrainConfig(steps=4000, evaluate_every=500),
    optimizer=known.optimizer.replace(learning_rate=1e-3, final_fraction=0.0),
)
magnitudes = longer.replace(
    name="magnitudes",
    start_from="longer",
    losses=CodecLossConfig(spectral=0.02, linear=True),
    train=TrainConfig(steps=1500, evaluate_every=500),
    optimizer=longer.optimizer.replace(learning_rate=5e-4),
)
unjudged = longer.replace(
    name="unjudged",
    start_from="longer",
    losses=CodecLossConfig(spectral=15.0, waveform=1.5, commitment=3.75),
    train=TrainConfig(steps=400, evaluate_every=200),
    batches=PipelineConfig(batch=6),
    optimizer=longer.optimizer.replace(learning_rate=3e-4, warmup_steps=100),
)
judged = unjudged.replace(
    name="judged",
    judges=JudgesConfig(parts=(STFTDiscriminatorsConfig(n_ffts=(1024, 512, 256), filters=16),)),
    judge_optimizer=OptimizerConfig(learning_rate=2e-3, betas=(0.5, 0.9), schedule="constant"),
)
config = CodecRunConfig(
    name="codec_world",
    codec="longer",
    corpus=WorldConfig(hours=1.5, speakers=4),
    stages=(known, longer, magnitudes, unjudged, judged),
)
