"""GSLM small enough for a test: every stage with a few steps on minutes of the synthetic world."""

from slm_jax.data.corpus import WorldConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.predictors import pitch_predictor
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.objectives.vocoder import VocoderLossConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.systems.speech import gslm
from slm_jax.training.loop import TrainConfig

UNITS = 16
TRAIN = TrainConfig(steps=4, log_every=2, checkpoint_every_steps=2)


def smallest(config: gslm.GSLMConfig) -> gslm.GSLMConfig:
    """`config` with the same stages, each cut down."""
    return config.replace(
        name="gslm_smallest",
        corpus=WorldConfig(hours=0.03, processes=1, test_share=0.3, dev_share=0.2),
        stages=tuple(cut(stage) for stage in config.stages),
        sampling=config.sampling.replace(max_new=16),
    )


def cut(stage):
    """One stage with tiny widths and a few steps."""
    changes = SMALL.get(stage.name, lambda stage: {})(stage)
    if hasattr(stage, "train"):
        changes |= {"train": TRAIN, "optimizer": stage.optimizer.replace(warmup_steps=1)}
    return stage.replace(**changes)


def small_encoder(model):
    """Two layers of 32 on a log-mel front end."""
    encoder = model.encoder.replace(
        conv_layers=((32, 3, 1), (32, 3, 2)),
        position=PositionalConvConfig(kernel=5, groups=0, weight_norm=False, form="unfold"),
        layers=2,
        width=32,
        heads=2,
        hidden=64,
    )
    return model.replace(encoder=encoder, classes=UNITS)


def small_vocoder(model):
    """One block per stage, narrow."""
    generator = ISTFTVocoderConfig(widths=(16, 16), blocks=(1, 1))
    return model.replace(units=UNITS, unit_dim=16, generator=generator, pitch_predictor=pitch_predictor(16))


LOSSES = VocoderLossConfig(resolutions=((256, 64, 20),))
KMEANS = KMeansConfig(clusters=UNITS, iterations=5, start_rows=500)
LM = {"vocabulary": 24, "layers": 2, "width": 32, "heads": 2, "hidden": 64}
SMALL = {
    "mfcc": lambda stage: {"kmeans": KMEANS},
    "hubert": lambda stage: {"model": small_encoder(stage.model), "crop_s": 1.0},
    "units": lambda stage: {"kmeans": KMEANS, "features": stage.features.replace(layer=1)},
    "lm": lambda stage: {"model": stage.model.replace(**LM), "row_length": 64},
    "vocoder": lambda stage: {"model": small_vocoder(stage.model), "frames": 16, "losses": LOSSES},
}

config = smallest(gslm.config("tiny"))
