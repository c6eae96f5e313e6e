"""SpiRit-LM: one stream in which words are written or heard in turns (Nguyen et al. 2024), plain or expressive.

    clip -> HuBERT at 25 Hz, layer 11 -> 501 units without repetitions -> LLaMA 2 -> text and units in turns -> vocoder

What is special. A text LM goes on with text alone, units alone and recordings whose words are known with their times,
of which spans are read and spans are heard: `[Text]` and `[Speech]` stand wherever one follows the other. So it learns
that both say the same, without any request; transcripts and speech come of the marks alone. Loss is that of every id.

What differs. The released units come from a quantizer of its own with a blank (501 rows of the table, of which k-means
here fills 500), and its HuBERT was trained on more languages; a last iteration at 25 Hz is trained here, as TWIST's is.
A share of a third for each kind is recalled, not seen, and so are steps, rate and batch; the longest span of words is
chosen here. The expressive model has ranges for pitch and style behind the units, sorted by time with style first, and
a voice that reads all three. Its classifier learns the manners of the corpus (the release: those of EXPRESSO), its F0
is this project's. Where a reply holds units before any style, the first one that comes holds (the release draws one of
three where none comes; here it is class 0).

Sizes: "7b", LLaMA 2 with 32,512 rows, "7b_expressive" with 32,768, "tiny", a HuBERT, 100 units, a byte LM and a fast
vocoder trained here, and "tiny_expressive", the same with codes of pitch and classes of manners.
"""

from typing import Any

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.one_stream import Document, WordTurns
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.encoders.ssl import BASE_CONVS, SSLEncoderConfig
from slm_jax.encoders.ssl_presets import hubert_base, log_mel_tiny, wav2vec2_base
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.one_stream import OneStreamJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.text_continuation import TextContinuationJudge
from slm_jax.layouts.interleaved import WordSpans
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.one_stream_speech_lm import Form, OneStreamDecoding
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.expressive import STREAMS, expressive_tokens, expressive_voice, small_expressive_tokens
from slm_jax.systems.recipes.hubert_units import PUBLISHED_KMEANS, published_hubert, published_units
from slm_jax.systems.recipes.one_stream import OneStreamRunConfig
from slm_jax.systems.recipes.small_parts import LM, UNITS, text_lm, units_encoder
from slm_jax.systems.recipes.unit_voice import fast_vocoder, published_vocoder
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfStageConfig
from slm_jax.training.pre.heard_turns import SpeechStreamConfig
from slm_jax.training.pre.one_stream_lm import OneStreamLMConfig

CLUSTERS, STAGE = "clusters", "turns"
MARKS = ("[Text]", "[Speech]")
FORMS = (
    Form(name="go_on", marks=MARKS, answer="{text}{speech}"),
    Form(name="transcribe", prompt="[Speech]{speech}[Text]", answer="{text}"),
    Form(name="speak", prompt="[Text]{text}[Speech]", answer="{speech}"),
    Form(name="speech", marks=MARKS, answer="{speech}"),
    Form(name="text", marks=MARKS, answer="{text}"),
)
"""Free continuation, which may change from one to the other, both tasks that marks ask for, and one kind alone."""
MANNERS = ("rate", "energy", "register")
"""What the world's voices vary where the model is to hear it."""
SCORED = ("[Speech]{speech}", "[Text]{text}")
JUDGES: tuple[JudgeConfig, ...] = (PairsJudge(), TextContinuationJudge(), OneStreamJudge(), LossesJudge())
CARD = SystemCard(
    name="SpiRit-LM",
    paper="Nguyen et al. 2024",
    sizes=("tiny", "tiny_expressive", "7b", "7b_expressive"),
    reads=("speech", "text"),
    writes=("speech", "text"),
    counted=STAGE,
    plans=("spirit_lm_7b_v5e",),
)


class SpiRitLMConfig(OneStreamRunConfig):
    """A run of SpiRit-LM."""

    lm_stage: str = STAGE
    forms: tuple[Form, ...] = FORMS
    scored: tuple[str, str] = SCORED
    judges: tuple[JudgeConfig, ...] = JUDGES


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpiRitLMConfig:
    """A size of SpiRit-LM with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds `llama-2-7b`.
    """
    require(size in CARD.sizes, "SpiRit-LM size", size, f"one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}")
    small, expressive = size.startswith("tiny"), size.endswith("expressive")
    made = tiny(expressive=expressive) if small else published(weights, expressive=expressive)
    return made.replace(**changes)


def kinds(longest_span: int, before: str) -> MixtureConfig:
    """A third each: units alone, text alone, both in turns."""
    turns = WordTurns(layout=WordSpans(longest_span=longest_span), marks=MARKS, before=before)
    return MixtureConfig(
        parts=(
            PartConfig(name="speech", weight=1.0, example=Document(answer="[Speech]{speech}")),
            PartConfig(name="text", weight=1.0, example=Document(answer=f"[Text]{before}{{text}}")),
            PartConfig(name="turns", weight=1.0, example=turns),
        )
    )


def tiny(corpus: CorpusConfig | None = None, clusters: int = 100, expressive: bool = False) -> SpiRitLMConfig:
    """Small enough for two cores: 2 M parameters of encoder and of language model each, a fast vocoder.

    The forms put a space before text as the documents do. `expressive`: on a world whose voices have manners.
    """
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    units = FrameUnitsConfig(
        name=CLUSTERS,
        features=LayerOfStageConfig(stage=UNITS, layer=3),
        kmeans=KMeansConfig(clusters=clusters, iterations=30),
        postprocess=PostprocessConfig(normalise="layer_norm", smooth=3),
    )
    stage = OneStreamLMConfig(
        name=STAGE,
        streams=(SpeechStreamConfig(stage=CLUSTERS), *(STREAMS if expressive else ())),
        marks=MARKS,
        lm=PartSource(path="params", source=f"stage:{LM}", frozen=False, expect=lm),
        mixture=kinds(longest_span=4, before=" "),
        row_length=512,
        train=TrainConfig(steps=2500, evaluate_every=250),
        batches=PipelineConfig(batch=4),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
    )
    tokens = small_expressive_tokens(log_mel_tiny().replace(layers=2)) if expressive else ()
    voice = fast_vocoder(clusters, CLUSTERS)
    return SpiRitLMConfig(
        name="spirit_lm_tiny_expressive" if expressive else "spirit_lm_tiny",
        corpus=corpus or WorldConfig(hours=1.2, styles=MANNERS if expressive else ()),
        stages=(
            *units_encoder(log_mel_tiny()),
            units,
            *tokens,
            text_lm(lm, ("sentence",)),
            stage,
            *(expressive_voice(voice) if expressive else voice),
        ),
        forms=tuple(
            one.replace(prompt=one.prompt.replace("[Text]{", "[Text] {")) if one.prompt else one for one in FORMS
        ),
        scored=(SCORED[0], "[Text] {text}"),
        decoding=OneStreamDecoding(max_new=200, temperature=0.8),
        prompt_s=1.2,
    )


def hubert_25hz() -> SSLEncoderConfig:
    """HuBERT base with an eighth convolution: a frame every 640 samples."""
    return hubert_base().replace(conv_layers=(*BASE_CONVS, (512, 2, 2)))


def published(weights: str, corpus: CorpusConfig | None = None, expressive: bool = False) -> SpiRitLMConfig:
    """LLaMA 2 7B and units at 25 Hz, from recordings to a voice.

    `expressive`: with codes of pitch and classes of style, whose encoder begins as `wav2vec2-base` of `weights`.
    """
    units, (pitch, style) = published_units(CLUSTERS, "hubert_25hz", layer=11, clusters=500), STREAMS
    streams = (SpeechStreamConfig(stage=CLUSTERS, ids=501), *((pitch, style.replace(ids=100)) if expressive else ()))
    steps = {"train": TrainConfig(steps=100_000), "batches": PipelineConfig(batch=64)}
    start = f"{weights}/wav2vec2-base"
    tokens = expressive_tokens(wav2vec2_base(), steps, steps, start) if expressive else ()
    generator = HiFiGANConfig(upsample=(5, 4, 4, 4, 2), upsample_kernels=(11, 8, 8, 8, 4))
    voice = published_vocoder(500, generator, units=CLUSTERS)
    return SpiRitLMConfig(
        name="spirit_lm_7b_expressive" if expressive else "spirit_lm_7b",
        corpus=corpus or WorldConfig(hours=100.0, styles=MANNERS if expressive else ()),
        stages=(
            FrameUnitsConfig(name="mfcc", features=MFCCFeaturesConfig(), kmeans=PUBLISHED_KMEANS.replace(clusters=100)),
            published_hubert("hubert_1", "mfcc", 100, hubert_base()),
            published_units("units_1", "hubert_1", layer=6, clusters=500),
            published_hubert("hubert_2", "units_1", 500, hubert_base()),
            published_units("units_2", "hubert_2", layer=9, clusters=500),
            published_hubert("hubert_25hz", "units_2", 500, hubert_25hz()),
            units,
            *tokens,
            published_lm(streams, weights),
            *(expressive_voice(voice) if expressive else voice),
        ),
        decoding=OneStreamDecoding(max_new=200, temperature=0.9, top_p=0.95),
    )


def published_lm(streams: tuple[SpeechStreamConfig, ...], weights: str) -> OneStreamLMConfig:
    """The language model over these streams; LLaMA's tokenizer puts spaces before words itself."""
    half: dict[str, Any] = {"dtype": "bfloat16", "remat": True}
    return OneStreamLMConfig(
        name=STAGE,
        streams=streams,
        marks=MARKS,
        text=32_000,
        multiple=128,
        tokens=TokenizerFileConfig(path=f"{weights}/llama-2-7b/tokenizer.json"),
        lm=PartSource(path="params", source=f"{weights}/llama-2-7b", frozen=False, expect=llama("2-7b", **half)),
        mixture=kinds(longest_span=8, before=""),
        row_length=4096,
        train=TrainConfig(steps=100_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(
            learning_rate=3e-5, warmup_steps=1_000, betas=(0.9, 0.95), weight_decay=0.1, clip=1.0
        ),
    )
