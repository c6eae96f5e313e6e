"""The published recipe of DAC, which SNAC shares: mels at seven resolutions, judges by period and by band.

Source: Kumar et al. 2023 and `conf/final` of their repository. Their losses are sums over judges, layers, resolutions
and books, in decimal logarithms; ours are means, in natural ones: `rvqgan_losses` says the same in our units.
"""

import math

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.spectral_discriminators import BandDiscriminatorsConfig, JudgesConfig
from slm_jax.objectives.codec import CodecLossConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.codec import CodecStageConfig

STEPS, DECAY = 400_000, 0.999996
"""Of the step: the factor of the learning rate."""
PERIODS, BANDS = DiscriminatorsConfig(scales=0, spectral_first=False), BandDiscriminatorsConfig()
RESOLUTIONS = tuple((window, window // 4, 5 * window // 32) for window in (32, 64, 128, 256, 512, 1024, 2048))
"""(window, hop, mels): 5 bands of 32 samples, 320 of 2,048."""


def rvqgan(name: str, model: CodecConfig) -> CodecStageConfig:
    """Adversarial training of `model` from the first step: 72 segments of .38 s, 400,000 steps."""
    optimizer = OptimizerConfig(
        learning_rate=1e-4,
        schedule="exponential",
        final_fraction=DECAY**STEPS,
        betas=(0.8, 0.99),
        weight_decay=0.01,
        no_decay="$^",
        clip=1000.0,
    )
    return CodecStageConfig(
        name=name,
        model=model,
        segment_s=0.38,
        losses=rvqgan_losses(model.quantizer),
        judges=JudgesConfig(parts=(PERIODS, BANDS)),
        start_segments=0,
        train=TrainConfig(steps=STEPS),
        batches=PipelineConfig(batch=72),
        optimizer=optimizer,
        judge_optimizer=optimizer.replace(clip=10.0 / judges()),
    )


def rvqgan_losses(quantizer: object) -> CodecLossConfig:
    """Mels 15, judges 1, features 2, commitment .25, codes 1, as sums."""
    books = used_books(quantizer)
    return CodecLossConfig(
        resolutions=RESOLUTIONS,
        spectral=15.0 * len(RESOLUTIONS) / math.log(10.0),
        waveform=0.0,
        adversarial=float(judges()),
        features=2.0 * layers(),
        relative_features=False,
        commitment=0.25 * books,
        codes=books,
    )


def judges() -> int:
    """How many there are."""
    return len(PERIODS.periods) + len(BANDS.n_ffts)


def layers() -> int:
    """How many layers of judges are compared: all, where the paper's code leaves each judge's scores out."""
    of_period, of_bands = len(PERIODS.period_widths) + 1, 5 * len(BANDS.bands) + 1
    return len(PERIODS.periods) * of_period + len(BANDS.n_ffts) * of_bands


def used_books(quantizer: object) -> float:
    """Books that a row uses in the mean: with probability `dropout` the first 1 to all of them."""
    assert isinstance(quantizer, ResidualVQConfig)  # for the type checker: DAC and SNAC have no other
    few = (quantizer.books + 1) / 2
    return quantizer.dropout * few + (1 - quantizer.dropout) * quantizer.books
