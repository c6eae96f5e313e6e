"""SpeechGPT: a text LM that also reads and writes units, and thinks in text in between (Zhang et al. 2023).

    clip -> mHuBERT, layer 11 -> 1,000 units without repetitions -> LLaMA -> transcript, text answer, units -> vocoder

What is special. Units are new words of a text LM. Three stages: `ma`, units alone; `cm`, pairs of speech and text in
both directions, and text, so that the text LM is kept; `com`, LoRA on a chain of modality: a spoken question is written
down, answered in text behind `[ta]`, and the answer said in units behind `[ua]`.

What differs. The released scripts keep `<eoa>`, `[ta]` and `[ua]` as plain text, and so does this; a document ends with
`</s>`. What stands before a request (a preamble about who the assistant is) and the wordings of requests are the run's
own. The answers of SpeechInstruct were units that a model of its authors made from text; here they are the recordings
of the corpus, as the world has them. Steps and batches of the third stage follow the paper, not the script's 300
epochs.

Sizes: "7b" as released, "13b" as in the paper's experiments: LLaMA, and an encoder in a folder. 33,006 rows: text,
1,000 units, `<sosp>`, `<eosp>` and the four marks of the scripts. "tiny" trains all its parts: a HuBERT, 100 units, a
byte LM, a fast vocoder. Its questions stand beside written notes that hold the answer (`data.examples.open_book`), as a
held-out fact can be known from nowhere else.
"""

from typing import Any

from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.one_stream import Document
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.encoders.ssl_presets import hubert_base, log_mel_tiny
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.one_stream import OneStreamJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.one_stream_speech_lm import Form, OneStreamDecoding
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.hubert_units import PUBLISHED_FIT_FRAMES, PUBLISHED_KMEANS
from slm_jax.systems.recipes.one_stream import OneStreamRunConfig
from slm_jax.systems.recipes.small_parts import LM, UNITS, text_lm, units_encoder
from slm_jax.systems.recipes.unit_voice import fast_vocoder, published_vocoder
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig, LayerOfStageConfig
from slm_jax.training.pre.heard_turns import SpeechStreamConfig
from slm_jax.training.pre.one_stream_lm import OneStreamLMConfig
from slm_jax.training.stages import StageConfig

CLUSTERS = "clusters"
MARKS = ("<sosp>", "<eosp>", "[Human]", "[SpeechGPT]", "<eoh>", "<eos>")
"""Behind the units, in the order in which the released scripts add them."""
STREAMS = (SpeechStreamConfig(stage=CLUSTERS),)
KINDS = ("sentence", "question_answer")
ASKS = "[Human]: {} <eoh>. [SpeechGPT]: "
HEARD, SAID = "<sosp>{asked_speech}<eosp>", "<sosp>{speech}<eosp>"
CHAIN = "{asked}; [ta] {answered}; [ua] <sosp>{answered_speech}<eosp><eoa>"
WRITE = ("Write down what is said.", "Transcribe the speech.", "What is said here?", "Put this speech into writing.")
READ = ("Read this aloud.", "Say this.", "Turn this into speech.", "Speak these words.")
INPUT = "This is input:"
"""By which the released model knows that speech or text to be turned into the other follows."""
FORMS = (
    Form(name="answer", prompt=ASKS.format(HEARD), answer=CHAIN),
    Form(name="notes", prompt=ASKS.format(f"{HEARD} {{written}}"), answer=CHAIN),
    Form(name="written", prompt=ASKS.format("{asked}"), answer="{answered}<eoa>"),
    Form(name="transcribe", prompt=ASKS.format(f"{WRITE[0]} {INPUT} {SAID}"), answer="{text}<eoa>"),
    Form(name="speak", prompt=ASKS.format(f"{READ[0]} {INPUT} {{text}}"), answer=f"{SAID}<eoa>"),
)
SCORED = (SAID, "{text}")
LORA = LoRAConfig(targets=".*/attention/(query|value)", rank=8, alpha=16.0, dropout=0.05)
NOTES = OpenBookTaskConfig()
QUESTIONS = AnsweredTaskConfig(kinds=("question_answer",))
SPEECH_ALONE = PartConfig(name="speech", weight=1.0, example=Document(answer=SAID))
TEXT_ALONE = PartConfig(name="text", weight=0.2, example=Document(answer="{text}"))
CARD = SystemCard(
    name="SpeechGPT",
    paper="Zhang et al. 2023",
    sizes=("tiny", "7b", "13b"),
    reads=("speech", "text"),
    writes=("speech", "text"),
    counted="cm",
    plans=("speechgpt_7b_v5e",),
)


class SpeechGPTConfig(OneStreamRunConfig):
    """A run of SpeechGPT."""

    lm_stage: str = "com"
    forms: tuple[Form, ...] = FORMS
    scored: tuple[str, str] = SCORED


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechGPTConfig:
    """A size of SpeechGPT with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds `mhubert-base` and `llama-7b` or `llama-13b`.
    """
    require(size in CARD.sizes, "SpeechGPT size", size, f"one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}")
    made = tiny() if size == "tiny" else published(size, weights)
    return made.replace(**changes)


def documents(transcribed: float = 1.0, weight: float = 1.0) -> tuple[PartConfig, ...]:
    """Pairs in both directions; what is told counts `weight` times (the released scripts learn it too: 1)."""
    write = tuple(ASKS.format(f"{ask} {INPUT} {SAID}") for ask in WRITE)
    read = tuple(ASKS.format(f"{ask} {INPUT} {{text}}") for ask in READ)
    how: dict[str, Any] = {"prompt_weight": weight, "whole": True}
    heard = Document(prompt=write, answer="{text}<eoa>", **how)
    spoken = Document(prompt=read, answer=f"{SAID}<eoa>", **how)
    return (
        PartConfig(name="transcribe", weight=transcribed, example=heard),
        PartConfig(name="speak", weight=1.0, example=spoken),
    )


def chains(with_notes: bool, weight: float = 1.0) -> tuple[PartConfig, ...]:
    """Spoken questions as chains of modality, and the same questions in writing.

    `with_notes` that hold the answer; then some are asked without, too, whose answers can only be known by heart.
    """
    how: dict[str, Any] = {"prompt_weight": weight, "whole": True, "kinds": ("question_answer",)}
    beside = " {written}" if with_notes else ""
    task = NOTES if with_notes else None
    chain = Document(prompt=(ASKS.format(HEARD + beside),), answer=CHAIN, task=task, **how)
    written = Document(prompt=(ASKS.format("{asked}" + beside),), answer="{answered}<eoa>", task=task, **how)
    alone = chain.replace(prompt=(ASKS.format(HEARD),), task=None)
    return (
        PartConfig(name="chain", weight=1.0, example=chain),
        PartConfig(name="written", weight=0.3, example=written),
        *((PartConfig(name="alone", weight=0.2, example=alone),) if with_notes else ()),
    )


def judged(with_notes: bool) -> MixtureConfig:
    """What the system is asked where it is judged."""
    asked = NOTES if with_notes else QUESTIONS
    return MixtureConfig(parts=(PartConfig(name="questions", weight=1.0, example=asked),))


def tiny(corpus: CorpusConfig | None = None, clusters: int = 100, weight: float = 0.2) -> SpeechGPTConfig:
    """Small enough for two cores: 2 M parameters of encoder and of language model each, a fast vocoder."""
    corpus = corpus or WorldConfig(hours=0.6, question_hours=0.6, speakers=4)
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    units = FrameUnitsConfig(
        name=CLUSTERS,
        features=LayerOfStageConfig(stage=UNITS, layer=3),
        kmeans=KMeansConfig(clusters=clusters, iterations=30),
        postprocess=PostprocessConfig(normalise="layer_norm", smooth=3),
    )
    shared: dict[str, Any] = {
        "streams": STREAMS,
        "marks": MARKS,
        "marks_last": True,
        "row_length": 640,
        "batches": PipelineConfig(batch=4),
        "optimizer": OptimizerConfig(learning_rate=2e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
    }
    trained_on: dict[str, Any] = {"frozen": False, "path": "params"}
    ma = OneStreamLMConfig(
        name="ma",
        lm=PartSource(source=f"stage:{LM}", expect=lm, **trained_on),
        mixture=MixtureConfig(parts=(SPEECH_ALONE, TEXT_ALONE)),
        train=TrainConfig(steps=300, evaluate_every=100),
        **shared,
    )
    cm = OneStreamLMConfig(
        name="cm",
        lm=PartSource(source="stage:ma", **trained_on),
        mixture=MixtureConfig(parts=(*documents(2.0, weight), TEXT_ALONE, chains(True, weight)[1])),
        train=TrainConfig(steps=2000, evaluate_every=250),
        **shared,
    )
    com = OneStreamLMConfig(
        name="com",
        lm=PartSource(path="frozen", source="stage:cm"),
        lora=LORA.replace(targets=".*/(attention|mlp)/.*", rank=32, alpha=64.0, dropout=0.0),
        mixture=MixtureConfig(parts=(*chains(True, weight), *documents(0.3, weight))),
        train=TrainConfig(steps=800, evaluate_every=100),
        **shared,
    )
    return SpeechGPTConfig(
        name="speechgpt_tiny",
        corpus=corpus,
        stages=(
            *units_encoder(log_mel_tiny()),
            units,
            text_lm(lm, KINDS),
            ma,
            cm,
            com,
            *fast_vocoder(clusters, CLUSTERS, speakers=4),
        ),
        decoding=OneStreamDecoding(max_new=400, temperature=0.0),
        asks=judged(True),
        judges=judges(True),
        keeps=KeptSpeechConfig(splits=("test",), kinds=KINDS),
    )


def judges(with_notes: bool) -> tuple[JudgeConfig, ...]:
    """Questions beside the same about other speech, both directions of pairs, losses."""
    asked = NOTES if with_notes else QUESTIONS
    return TasksJudge(tasks=judged(with_notes)), OneStreamJudge(answers=asked), LossesJudge()


def published(size: str, weights: str, corpus: CorpusConfig | None = None) -> SpeechGPTConfig:
    """LLaMA and a multilingual HuBERT as they are in folders; a voice of 16 kHz for 1,000 units."""
    half: dict[str, Any] = {"dtype": "bfloat16", "remat": True}
    encoder = PartSource(path="frozen/encoder", source=f"{weights}/mhubert-base", expect=hubert_base())
    units = FrameUnitsConfig(
        name=CLUSTERS,
        features=LayerOfPartConfig(part=encoder, layer=11),
        kmeans=PUBLISHED_KMEANS.replace(clusters=1000),
        fit_frames=PUBLISHED_FIT_FRAMES,
    )
    return SpeechGPTConfig(
        name=f"speechgpt_{size}",
        corpus=corpus or WorldConfig(hours=100.0, question_hours=50.0, speakers=100),
        stages=(units, *published_lm(size, weights, half), *published_voice()),
        decoding=OneStreamDecoding(max_new=1024, min_new=10, temperature=0.8, top_p=0.8, top_k=60),
        asks=judged(False),
        judges=judges(False),
        keeps=KeptSpeechConfig(splits=("test",), kinds=KINDS),
    )


def published_lm(size: str, weights: str, half: dict[str, Any]) -> tuple[StageConfig, ...]:
    """The three stages; the released scripts learn what is told as well."""
    shared: dict[str, Any] = {
        "streams": STREAMS,
        "marks": MARKS,
        "marks_last": True,
        "multiple": 1,
        "text": 32_000,
        "tokens": TokenizerFileConfig(path=f"{weights}/llama-{size}/tokenizer.json"),
        "row_length": 1024,
    }
    mesh = MeshConfig(data=1, fsdp=-1, rules="fsdp")
    trained_on: dict[str, Any] = {"frozen": False, "path": "params"}
    rates = OptimizerConfig(learning_rate=2e-5, warmup_steps=120, betas=(0.9, 0.999), weight_decay=0.0)
    ma = OneStreamLMConfig(
        name="ma",
        lm=PartSource(source=f"{weights}/llama-{size}", expect=llama(size, **half), **trained_on),
        mixture=MixtureConfig(parts=(SPEECH_ALONE,)),
        train=TrainConfig(steps=900, mesh=mesh),
        batches=PipelineConfig(batch=768),
        optimizer=rates.replace(learning_rate=2e-4, warmup_steps=27),
        **shared,
    )
    cm = OneStreamLMConfig(
        name="cm",
        lm=PartSource(source="stage:ma", **trained_on),
        mixture=MixtureConfig(parts=(*documents(), TEXT_ALONE)),
        train=TrainConfig(steps=4000, mesh=mesh),
        batches=PipelineConfig(batch=1536),
        optimizer=rates,
        **shared,
    )
    com = OneStreamLMConfig(
        name="com",
        lm=PartSource(path="frozen", source="stage:cm", dtype="bfloat16"),
        lora=LORA,
        mixture=MixtureConfig(parts=chains(False)),
        train=TrainConfig(steps=4200, mesh=mesh),
        batches=PipelineConfig(batch=384),
        optimizer=rates,
        **shared,
    )
    return ma, cm, com


def published_voice() -> tuple[StageConfig, ...]:
    """Unit HiFi-GAN of 50 units per second."""
    return published_vocoder(1000, HiFiGANConfig(), units=CLUSTERS)
