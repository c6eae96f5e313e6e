"""GSLM, generative spoken language modelling (Lakhotia et al. 2021): speech to units, units to units, units to speech.

    waveform -> HuBERT layer -> k-means -> without repetitions -> unit LM -> unit vocoder -> waveform

What differs from the paper. The decoder is a unit HiFi-GAN with duration prediction (Polyak et al. 2021) instead of
Tacotron 2 and WaveGlow: it is faster, needs no attention that can fail, and is what later systems use. The encoder
is trained here instead of downloaded. F0 is an input of the vocoder; where there is no recording to take it from, it
is predicted from the units.

Sizes: "published" (HuBERT base, layer 6, 12 layers of 1024, K of 50, 100 or 200) and "tiny", which two CPU cores
train in minutes.
"""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.errors import nearest, require
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.encoders.ssl_presets import hubert_base, log_mel_tiny
from slm_jax.encoders.ssl_pretraining import HubertPretrainingConfig
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.objectives.masked_prediction import MaskedPredictionConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import gslm_transformer_lm_big
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.hubert_units import PUBLISHED_KMEANS, published_hubert, published_units
from slm_jax.systems.recipes.unit_voice import fast_vocoder, published_vocoder
from slm_jax.systems.speech.unit_speech import UnitSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfStageConfig
from slm_jax.training.pre.masked_prediction import MaskedPredictionStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, unit_vocabulary

TRUE_F0 = "units, with the recording's durations and F0"
WORLD = "experiments/gslm_world/figures.json"
CARD = SystemCard(
    name="GSLM",
    paper="Lakhotia et al. 2021",
    sizes=("tiny", "published"),
    reads=("speech",),
    writes=("speech",),
    plans=("gslm_hubert_base_v5e", "gslm_hubert_base_v5p", "gslm_lm_v5e", "gslm_lm_v5p", "gslm_vocoder_v5p"),
    figures=(
        KeptFigure(words="nats per unit, held out", file=WORLD, place=("language_model", "model")),
        KeptFigure(words="bigram", file=WORLD, place=("language_model", "bigram")),
        KeptFigure(words="STOI of resynthesis", file=WORLD, place=("resynthesis", TRUE_F0, "stoi")),
    ),
)


class GSLMConfig(UnitSpeechConfig):
    """A run of GSLM."""


def config(size: str = "tiny", **changes: object) -> GSLMConfig:
    """A size of GSLM with some fields changed; raises `UserError` for an unknown size."""
    sizes = {"tiny": tiny, "published": published}
    require(size in sizes, "GSLM size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return sizes[size]().replace(**changes)


def tiny(corpus: CorpusConfig = WorldConfig(hours=0.8), clusters: int = 100) -> GSLMConfig:
    """Minutes on two cores: a log-mel HuBERT of 2 M parameters, a unit LM of 2 M, a fast vocoder."""
    kmeans = KMeansConfig(clusters=clusters, iterations=30)
    smooth = PostprocessConfig(normalise="layer_norm", smooth=3)
    stages = (
        FrameUnitsConfig(
            name="mfcc",
            features=MFCCFeaturesConfig(),
            kmeans=kmeans,
            postprocess=PostprocessConfig(normalise="standardise"),
        ),
        MaskedPredictionStageConfig(
            name="hubert",
            targets="mfcc",
            model=HubertPretrainingConfig(encoder=log_mel_tiny(), classes=clusters, head="linear"),
            mask_share=0.65,
            objective=MaskedPredictionConfig(unmasked_weight=0.3),
            train=TrainConfig(steps=360),
            batches=PipelineConfig(batch=4),
            optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, betas=(0.9, 0.98), weight_decay=0.01),
        ),
        FrameUnitsConfig(
            name="units",
            features=LayerOfStageConfig(stage="hubert", layer=4),
            kmeans=kmeans,
            postprocess=smooth,
        ),
        UnitLMConfig(
            name="lm",
            units="units",
            model=DecoderConfig(
                vocabulary=unit_vocabulary(clusters).padded_size(8),
                layers=4,
                width=192,
                heads=4,
                hidden=768,
                positions="rope",
                dropout=0.1,
            ),
            row_length=256,
            train=TrainConfig(steps=220),
            batches=PipelineConfig(batch=4),
            optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.01),
        ),
        *fast_vocoder(clusters),
    )
    return GSLMConfig(
        name="gslm_tiny",
        corpus=corpus,
        stages=stages,
        prompt_s=1.2,
        sampling=SamplingConfig(temperature=0.8, max_new=200),
    )


def published(corpus: CorpusConfig | None = None, clusters: int = 100) -> GSLMConfig:
    """The sizes of the paper, with the training recipes of HuBERT and GSLM as far as they are published.

    HuBERT base: 400,000 steps in each of two iterations (MFCC with 100 clusters, then layer 6 with 500); the unit LM:
    500,000 steps of about half a million tokens; HiFi-GAN V1 on units with its judges.
    """
    kmeans = PUBLISHED_KMEANS.replace(clusters=100)
    stages = (
        FrameUnitsConfig(name="mfcc", features=MFCCFeaturesConfig(), kmeans=kmeans),
        published_hubert("hubert_1", "mfcc", 100, hubert_base()),
        published_units("units_1", "hubert_1", layer=6, clusters=500),
        published_hubert("hubert_2", "units_1", 500, hubert_base()),
        published_units("units", "hubert_2", layer=6, clusters=clusters),
        UnitLMConfig(
            name="lm",
            units="units",
            model=gslm_transformer_lm_big(clusters),
            row_length=3072,
            train=TrainConfig(steps=500_000, accumulate=4),
            batches=PipelineConfig(batch=160),
            optimizer=OptimizerConfig(
                learning_rate=5e-4, schedule="inverse_sqrt", warmup_steps=4000, betas=(0.9, 0.98)
            ),
        ),
        *published_vocoder(clusters, HiFiGANConfig()),
    )
    return GSLMConfig(name="gslm_published", corpus=corpus or WorldConfig(hours=100.0), stages=stages)
