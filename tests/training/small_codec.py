"""A stage that trains a codec of a few thousand weights with its judges, on tones."""

from slm_jax.data.examples.waveform_segments import ChannelConfig
from slm_jax.data.mixed_sounds import MixedConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.spectral_discriminators import (
    BandDiscriminatorsConfig,
    JudgesConfig,
    STFTDiscriminatorsConfig,
)
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig
from tests.codecs import CODECS

BOOKS = ResidualVQConfig(width=12, books=2, codebook=CodebookConfig(size=8, width=12), dropout=0.5)
MODEL = CODECS["over spectra"].replace(quantizer=BOOKS)
JUDGES = JudgesConfig(
    parts=(
        STFTDiscriminatorsConfig(n_ffts=(64,), filters=2, dilations=(1,)),
        BandDiscriminatorsConfig(n_ffts=(64,), bands=((0.0, 1.0),), filters=2),
        DiscriminatorsConfig(periods=(2,), period_widths=(4,), scales=0, scale_layers=()),
    )
)
STAGE = CodecStageConfig(
    name="codec",
    model=MODEL,
    segment_s=0.05,
    losses=CodecLossConfig(resolutions=((64, 16, 8), (128, 32, 0)), balance=0.9),
    judges=JUDGES,
    judge_optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0),
    mixed=MixedConfig(shares=(0.5, 0.5)),
    channel=ChannelConfig(share=0.5),
    start_segments=4,
    train=TrainConfig(steps=6, log_every=1, evaluate_every=3),
    batches=PipelineConfig(batch=8),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
