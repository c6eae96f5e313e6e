"""Units as published: HuBERT's iterations, and k-means on one of its layers (Hsu et al. 2021)."""

from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_pretraining import HubertPretrainingConfig
from slm_jax.objectives.masked_prediction import MaskedPredictionConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfStageConfig
from slm_jax.training.pre.masked_prediction import MaskedPredictionStageConfig

PUBLISHED_KMEANS = KMeansConfig(clusters=500, batch=10_000, starts=20)
PUBLISHED_FIT_FRAMES = 5_000_000
HUBERT_OPTIMIZER = OptimizerConfig(
    learning_rate=5e-4,
    schedule="polynomial",
    power=1.0,
    warmup_steps=32_000,
    betas=(0.9, 0.98),
    eps=1e-6,
    weight_decay=0.01,
    clip=10.0,
)


def published_hubert(name: str, targets: str, classes: int, encoder: SSLEncoderConfig) -> MaskedPredictionStageConfig:
    """One iteration of HuBERT as published (Hsu et al. 2021): 400,000 steps on crops of 250,000 samples."""
    return MaskedPredictionStageConfig(
        name=name,
        targets=targets,
        model=HubertPretrainingConfig(encoder=encoder, classes=classes),
        crop_s=15.625,
        objective=MaskedPredictionConfig(feature_penalty=10.0),
        train=TrainConfig(steps=400_000),
        batches=PipelineConfig(batch=256),
        optimizer=HUBERT_OPTIMIZER,
    )


def published_units(name: str, hubert: str, layer: int, clusters: int) -> FrameUnitsConfig:
    """k-means on a layer of the encoder that stage `hubert` trained."""
    return FrameUnitsConfig(
        name=name,
        features=LayerOfStageConfig(stage=hubert, layer=layer),
        kmeans=PUBLISHED_KMEANS.replace(clusters=clusters),
        fit_frames=PUBLISHED_FIT_FRAMES,
    )
