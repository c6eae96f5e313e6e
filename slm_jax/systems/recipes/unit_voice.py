"""A voice for units: F0, HiFi-GAN with its judges and durations as published, or a fast one that learns in minutes."""

from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import PredictorConfig, pitch_predictor
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.objectives.vocoder import hifigan_losses
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageConfig


def published_vocoder(
    clusters: int, generator: HiFiGANConfig, segment: int = 8960, units: str = "units"
) -> tuple[StageConfig, ...]:
    """F0, HiFi-GAN on units with its judges (Polyak et al. 2021), and its durations.

    `segment`: samples that are trained on at once. `units`: the stage that makes them.
    """
    vocoder = UnitVocoderStageConfig(
        name="vocoder",
        units=units,
        pitch="pitch",
        model=UnitVocoderConfig(units=clusters, generator=generator),
        frames=segment // generator.hop,
        losses=hifigan_losses(),
        discriminators=DiscriminatorsConfig(),
        train=TrainConfig(steps=400_000),
        batches=PipelineConfig(batch=16),
        optimizer=OptimizerConfig(
            learning_rate=2e-4, schedule="exponential", final_fraction=0.1, betas=(0.8, 0.99), weight_decay=0.01
        ),
    )
    durations = DurationStageConfig(
        name="durations", vocoder="vocoder", train=TrainConfig(steps=20_000), batches=PipelineConfig(batch=64)
    )
    return PitchStageConfig(name="pitch"), vocoder, durations


def fast_vocoder(clusters: int, units: str = "units", speakers: int = 0) -> tuple[StageConfig, ...]:
    """F0, the fast vocoder with spectral losses, and its durations: minutes on two cores.

    `units`: the stage that makes them. `speakers`: voices that it tells apart, 0 for one without a name.
    """
    vocoder = UnitVocoderStageConfig(
        name="vocoder",
        units=units,
        pitch="pitch",
        model=UnitVocoderConfig(
            units=clusters,
            speakers=speakers,
            generator=ISTFTVocoderConfig(),
            durations=PredictorConfig(dropout=0.1),
            pitch_predictor=pitch_predictor(64),
        ),
        train=TrainConfig(steps=520),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=40, betas=(0.8, 0.99)),
    )
    durations = DurationStageConfig(
        name="durations",
        vocoder="vocoder",
        train=TrainConfig(steps=200),
        batches=PipelineConfig(batch=16),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=20),
    )
    return PitchStageConfig(name="pitch", known="f0_hz"), vocoder, durations
