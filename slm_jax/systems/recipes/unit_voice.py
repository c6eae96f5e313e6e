"""A voice for units as published: F0, HiFi-GAN with its judges, and durations (Polyak et al. 2021)."""

from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.objectives.vocoder import hifigan_losses
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageConfig


def published_vocoder(clusters: int, generator: HiFiGANConfig, segment: int = 8960) -> tuple[StageConfig, ...]:
    """F0, HiFi-GAN on units with its judges (Polyak et al. 2021), and its durations.

    `segment`: samples that are trained on at once.
    """
    vocoder = UnitVocoderStageConfig(
        name="vocoder",
        units="units",
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
