"""TWIST, a unit language model that begins with the weights of a text model (Hassid et al. 2023).

    waveform -> HuBERT at 25 Hz, layer 11 -> 500 units -> without repetitions -> OPT or LLaMA -> unit vocoder

What is special: the language model is a text model whose table of words gives way to one of units; all weights are
then trained. What differs. The multilingual HuBERT is trained here, in a last iteration with one more convolution
(stride 2) on every second unit of one at 50 Hz; the released one is a download. The vocabulary has `<pad> <s> </s>`
before the units, 504 rows when filled up, where the released models have 502. Steps, rates and batches of the
published sizes are those of slamkit (Maimon et al. 2025), which the paper leaves open, and so is the sampling.

Sizes: "125m", "350m" and "1.3b" (OPT), "7b" and "13b" (LLaMA), and "tiny", the body of stories15M, which two CPU cores
train in minutes. `start_from` names the folder of the text model; None trains the same shape from nothing.
"""

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.errors import nearest, require
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.encoders.ssl import BASE_CONVS, SSLEncoderConfig
from slm_jax.encoders.ssl_presets import hubert_base
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import llama, opt
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.hubert_units import PUBLISHED_KMEANS, published_hubert, published_units
from slm_jax.systems.recipes.unit_voice import published_vocoder
from slm_jax.systems.speech import gslm
from slm_jax.systems.speech.unit_speech import UnitSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, unit_vocabulary

UNITS = 500
BODIES = {"125m": opt, "350m": opt, "1.3b": opt, "7b": llama, "13b": llama}


WARM = "experiments/twist_warm_start/figures.json"
CARD = SystemCard(
    name="TWIST",
    paper="Hassid et al. 2023",
    sizes=("tiny", *BODIES),
    reads=("speech",),
    writes=("speech",),
    plans=("twist_350m_v5e", "twist_1_3b_v5e", "twist_1_3b_v5p", "twist_7b_v5e", "twist_7b_v5p"),
    figures=(
        KeptFigure(words="nats per unit, held out, begun from text", file=WARM, place=("arms", "5", "test")),
        KeptFigure(words="from nothing", file=WARM, place=("arms", "4", "test")),
        KeptFigure(words="bigram", file=WARM, place=("ngrams", "bigram")),
    ),
)


class TWISTConfig(UnitSpeechConfig):
    """A run of TWIST."""


def config(size: str = "tiny", start_from: str | None = None, **changes: object) -> TWISTConfig:
    """A size of TWIST with some fields changed; raises `UserError` for an unknown size."""
    sizes = ("tiny", *BODIES)
    require(size in sizes, "TWIST size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    made = tiny(start_from) if size == "tiny" else published(size, start_from)
    return made.replace(**changes)


def body(size: str) -> DecoderConfig:
    """The decoder of a published size over the units."""
    return BODIES[size](size, vocabulary=unit_vocabulary(UNITS).padded_size(8))


def stories15m(units: int) -> DecoderConfig:
    """The body of stories15M (llama2.c), 6 M parameters without its table of words, over `units` units."""
    return llama(
        "7b",
        vocabulary=unit_vocabulary(units).padded_size(8),
        layers=6,
        width=288,
        heads=6,
        kv_heads=6,
        hidden=768,
        norm_epsilon=1e-5,
        tied_head=True,
        dropout=0.1,
    )


def hubert_25hz() -> SSLEncoderConfig:
    """HuBERT base with an eighth convolution: a frame every 640 samples."""
    return hubert_base().replace(conv_layers=(*BASE_CONVS, (512, 2, 2)))


def tiny(
    start_from: str | None = None, corpus: CorpusConfig = WorldConfig(hours=0.8), clusters: int = 100
) -> TWISTConfig:
    """The stages of the tiny GSLM with the body of stories15M as its language model."""
    base = gslm.tiny(corpus, clusters)
    lm = base.stage("lm").replace(
        model=stories15m(clusters),
        start_from=start_from,
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=30, betas=(0.9, 0.95), weight_decay=0.1),
    )
    return TWISTConfig(
        name="twist_tiny",
        corpus=corpus,
        stages=tuple(lm if stage.name == "lm" else stage for stage in base.stages),
        prompt_s=base.prompt_s,
        sampling=base.sampling.replace(temperature=0.8),
    )


def published(size: str, start_from: str | None = None, corpus: CorpusConfig | None = None) -> TWISTConfig:
    """A published size, from recordings to a voice."""
    stages = (
        FrameUnitsConfig(name="mfcc", features=MFCCFeaturesConfig(), kmeans=PUBLISHED_KMEANS.replace(clusters=100)),
        published_hubert("hubert_1", "mfcc", 100, hubert_base()),
        published_units("units_1", "hubert_1", layer=6, clusters=UNITS),
        published_hubert("hubert_2", "units_1", UNITS, hubert_base()),
        published_units("units_2", "hubert_2", layer=9, clusters=UNITS),
        published_hubert("hubert_25hz", "units_2", UNITS, hubert_25hz()),
        published_units("units", "hubert_25hz", layer=11, clusters=UNITS),
        published_lm(size, start_from),
        *published_vocoder(UNITS, HiFiGANConfig(upsample=(5, 4, 4, 4, 2), upsample_kernels=(11, 8, 8, 8, 4))),
    )
    sampling = SamplingConfig(temperature=0.8, max_new=150)
    return TWISTConfig(
        name=f"twist_{size.replace('.', '_')}",
        corpus=corpus or WorldConfig(hours=100.0),
        stages=stages,
        sampling=sampling,
    )


def published_lm(size: str, start_from: str | None) -> UnitLMConfig:
    """slamkit's recipe: 17,625 steps of 128 rows of 1,024 tokens (2.3 billion), cosine from 1e-3 to 5e-5.

    From 1.3 billion parameters on they are spread over all devices, and activations are computed again.
    """
    large = size in ("1.3b", "7b", "13b")
    mesh = MeshConfig(data=1, fsdp=-1, rules="fsdp") if large else MeshConfig()
    return UnitLMConfig(
        name="lm",
        units="units",
        model=body(size).replace(dtype="bfloat16", remat=large),
        start_from=start_from,
        row_length=1024,
        train=TrainConfig(steps=17_625, accumulate=16, mesh=mesh),
        batches=PipelineConfig(batch=128),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, final_fraction=0.05, warmup_steps=176, betas=(0.9, 0.95), weight_decay=0.1, clip=0.5
        ),
    )
