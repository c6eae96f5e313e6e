"""What the systems over one stream of units share (GSLM, TWIST): how a run is loaded, and published stages."""

from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.objectives.masked_prediction import HubertPretrainingConfig, MaskedPredictionConfig
from slm_jax.objectives.vocoder import hifigan_losses
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.serving.unit_speech_lm import UnitSpeechLM
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfStageConfig
from slm_jax.training.pre.masked_prediction import MaskedPredictionStageConfig
from slm_jax.training.pre.pitch import PitchStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, unit_vocabulary
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import RunConfig, StageConfig, StageContext

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


class UnitSpeechConfig(RunConfig):
    """The stages of a run that make up the system, by name, and how it speaks by default.

    `prompt_s`: seconds of speech that are continued.
    """

    units_stage: str = "units"
    lm_stage: str = "lm"
    vocoder_stage: str = "durations"
    prompt_s: float = 3.0
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_new=500)

    @property
    def spoken_by(self) -> str:
        """The stage that trained the generator."""
        stage = self.stage(self.vocoder_stage)
        return stage.vocoder if isinstance(stage, DurationStageConfig) else stage.name

    def load(self, context: StageContext) -> UnitSpeechLM:
        """The trained system."""
        units, lm = (
            FrameUnitsConfig.of(context.finished(self.units_stage)),
            UnitLMConfig.of(context.finished(self.lm_stage)),
        )
        durations = DurationStageConfig.of(context.finished(self.vocoder_stage))
        vocoder = UnitVocoderStageConfig.of(context.finished(durations.vocoder))
        return UnitSpeechLM(
            tokenizer=units.tokenizer(context),
            vocabulary=unit_vocabulary(units.clusters),
            lm=lm.decoder(context.finished(self.lm_stage)).make(),
            lm_params=trained(context.finished(self.lm_stage))[1]["params"],
            vocoder=vocoder.vocoder(context).make(),
            vocoder_params=trained(context.finished(self.vocoder_stage))[1]["params"]["generator"],
            speakers=vocoder.speakers(context),
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
