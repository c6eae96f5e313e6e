"""SLM: a small adapter between a frozen speech encoder and a frozen T5 (Wang et al. 2023, arXiv 2310.00230).

    clip -> speech encoder -> frames that are spoken -> Transformer layers -> T5's encoder, with words -> T5's decoder

What is special. Both foundation models stay as they are; about 1 % of all parameters is trained, an adapter of 156 M,
on recognition, translation and spoken instructions at once. The language model was taught to follow written
instructions, and follows them about speech: what is heard stands in front of what is asked, among the vectors that T5's
encoder reads, and the answer is what its decoder writes.

What is an interpretation. Neither code nor weights are public. That both models are frozen, the adapter's size and
where speech enters are the paper's. The speech encoder (USM) is not public: Whisper large-v3's stands in its place,
over the length of the clip alone (`trim`). That the language model is mT0-MT XXL, that frames of CTC blanks are left
out and that the adapter has two layers is known at second hand; their width (2,432) and blocks (9,472) follow from the
size, and make 156 M. `depth`, `stride` (neighbouring frames that become one vector: 2, for 25 a second) and `blanks`
are fields. Whisper has no CTC head, so the published size keeps every frame. What is asked, and the mark `</s>` behind
it, rates, steps and batches are chosen here. Translation is left out, since the world speaks one language.

Sizes: "13b" reads its frozen parts from a folder. "tiny" trains them itself, without any download: an encoder that CTC
taught letters, whose head says which frames are blank; an LM of T5's form over byte pairs of the corpus, trained by
span corruption and by repeating what it reads, and then, as mT0 was, on written tasks. Only then comes the stage of SLM
itself, in which the adapter alone learns.
"""

from typing import Any

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.ctc import CTCAdapterConfig, CTCSegmentsConfig
from slm_jax.adapters.gain import GainConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig, SpeechTaskConfig
from slm_jax.data.examples.written_tasks import WrittenTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.encoder_decoder import EncoderDecoderConfig
from slm_jax.sequence_models.t5 import mt5, t5_form
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, letters_encoder, t5_rates
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.learnt_tokens import LearntTokensConfig
from slm_jax.text.templates import T5
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.span_corruption import SpanCorruptionStageConfig
from slm_jax.training.stage_tokens import StageTokensConfig

INSTRUCTED = "instructed"
"""The stage in which the language model of the tiny twin learns written tasks."""
KINDS = ("sentence", "question_answer", "instruction")
TASKS = MixtureConfig(
    parts=(
        PartConfig(
            name="transcription",
            weight=0.4,
            example=AskedTaskConfig(
                kinds=("sentence",), asks=("Write down what is said.", "Transcribe the recording.")
            ),
        ),
        PartConfig(name="questions", weight=0.3, example=OpenBookTaskConfig()),
        PartConfig(name="instructions", weight=0.3, example=AnsweredTaskConfig(kinds=("instruction",))),
    )
)
WORDS, SENTINELS = 1024, 32
"""Byte pairs of the tiny twin's texts, and the ids behind them that stand for hidden spans."""
WRITES = t5_rates(2e-3, queries=3e-4, warmup_steps=40)
"""Of the tiny twin's language model; both rates were found by their effect."""
STUTTER = 3
"""Times that a word stands in a row, at most, while the tiny twin's language model learns written tasks. One that has
met each word once alone writes down what stands twice at 7 nats per id (.005 where it stands once): it could not read
speech, whatever is between them."""
LOUD = 0.07
"""Standard deviation of the table of the tiny twin's language model once it has learnt."""
REAL = "experiments/slm/real.json"
CARD = SystemCard(
    name="SLM",
    paper="Wang et al. 2023",
    sizes=("tiny", "13b"),
    reads=("speech", "text"),
    writes=("text",),
    plans=("slm_13b_v5e",),
    counted="answers",
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("tasks", "transcription", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("tasks", "transcription", "other_speech", "wer")),
    ),
)


def config(
    size: str = "tiny",
    depth: int = 2,
    stride: int | None = None,
    blanks: bool | None = None,
    weights: str = "weights",
    **changes: object,
) -> SpeechAwareConfig:
    """A size of SLM with some fields changed; raises `UserError` for an unknown size and for blanks without a CTC head.

    `depth`: layers of the adapter. `stride`: neighbouring frames that become one vector. `blanks`: whether frames that
    a CTC head calls blank are left out. Both None: as the size has them. `weights`: the folder that holds the parts of
    the published size, `whisper-large-v3` and `mt0-xxl-mt`.
    """
    require(size in CARD.sizes, "SLM size", size, f"one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}")
    if size == "tiny":
        return tiny(depth, stride or 4, blanks in (None, True)).replace(**changes)
    require(not blanks, "blanks", blanks, "Whisper's encoder has no CTC head that could tell them")
    return published(depth, stride or 2, weights).replace(**changes)


def tiny(depth: int, stride: int, blanks: bool, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """For two CPU cores: an encoder of 2 M parameters, an LM of 2 M over byte pairs, an adapter of 0.8 M."""
    encoder = log_mel_tiny()
    letters = letters_encoder(encoder).replace(with_head=True)
    segments = CTCSegmentsConfig(vocabulary=letters.example.classes, rule="spoken_frames", keep=0.6)
    dropped = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
    lm = t5_form((2, 192, 4, 48, 512), vocabulary=WORDS + SENTINELS, **dropped)
    lm = lm.replace(decoder=lm.decoder.replace(tied_head=True))  # as in T5: what is read is soon repeated
    heard = PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", take="encoder", expect=letters.encoder)
    head = PartSource(path="frozen/adapter/parts_0/segments/head", source=f"stage:{LETTERS}", take="head")
    layers = TransformerAdapterConfig(width=lm.width, layers=depth, heads=4, hidden=384, sinusoids=True, dropout=0.0)
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            heard,
            *((head,) if blanks else ()),
            PartSource(path="frozen/lm", source=f"stage:{INSTRUCTED}", take="lm", expect=lm),
        ),
        adapter=adapter(192, layers, stride, segments if blanks else None, loud=LOUD),
        template=T5,
        tokens=StageTokensConfig(stage=LM),
        tasks=TASKS,
        clip_s=6.0,
        length=136,
        written=48,
        train=TrainConfig(steps=4000, evaluate_every=400),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
    )
    stages = (spans(lm), instructed(answers, encoder, lm), letters, answers)
    corpus = corpus or WorldConfig(hours=0.6, question_hours=0.3, instruction_hours=0.3, speakers=4)
    return speech_aware_run("slm_tiny", corpus, stages, decoding=AnswerDecoding(max_new=48))


def spans(lm: EncoderDecoderConfig) -> SpanCorruptionStageConfig:
    """T5's pre-training on what is said in the corpus.

    Half of a text is hidden in long spans, where T5 hides a seventh in short ones: what is written is all that a row
    teaches, texts are short, and within a short span there is hardly any text to go on from. Most rows are shuffled
    texts to be written again. That has to be learnt from the beginning: behind a thousand steps of spans alone it was
    not in six hundred, without them in two hundred (`experiments/slm`).
    """
    return SpanCorruptionStageConfig(
        name=LM,
        model=lm,
        tokens=LearntTokensConfig(size=WORDS),
        kinds=KINDS,
        length=24,
        share=0.5,
        mean_span=6.0,
        shuffled=0.6,
        sentinels=SENTINELS,
        train=TrainConfig(steps=1200, evaluate_every=100),
        batches=PipelineConfig(batch=64),
        optimizer=WRITES,
    )


def instructed(
    answers: SpeechAwareStageConfig, encoder: SSLEncoderConfig, lm: EncoderDecoderConfig
) -> SpeechAwareStageConfig:
    """The tasks of `answers` in writing; the language model learns, `encoder` hears nothing."""
    written = [
        part.replace(example=WrittenTaskConfig(task=part.example, stutter=STUTTER))
        for part in answers.mixture.parts
        if isinstance(part.example, SpeechTaskConfig)
    ]
    return answers.replace(
        name=INSTRUCTED,
        parts=(PartSource(path="params/lm", source=f"stage:{LM}", expect=lm, frozen=False),),
        encoder=encoder,
        adapter=LinearAdapterConfig(width=lm.width),
        tasks=MixtureConfig(parts=tuple(written)),
        clip_s=0.5,
        length=96,
        cache=False,
        batches=PipelineConfig(batch=16),
        train=TrainConfig(steps=700, evaluate_every=100),
        optimizer=WRITES,
    )


def published(depth: int, stride: int, weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Whisper's encoder and mT0-MT XXL as they are; an adapter of 156 M is trained."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    encoder = whisper("large-v3").encoder.replace(trim=True, **half)
    lm = mt5("xxl", remat=True, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, **half)
    layers = TransformerAdapterConfig(width=lm.width, layers=depth, heads=19, hidden=9472, **half)
    source = f"{weights}/whisper-large-v3"
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="frozen/encoder", source=source, take="encoder", expect=encoder, **half),
            PartSource(path="frozen/lm", source=f"{weights}/mt0-xxl-mt", expect=lm, **half),
        ),
        adapter=adapter(2432, layers, stride, None),
        template=T5,
        tokens=TokenizerFileConfig(path=f"{weights}/mt0-xxl-mt/tokenizer.json"),
        tasks=TASKS,
        clip_s=30.0,
        length=1024,
        written=256,
        train=TrainConfig(steps=50_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=2_000, betas=(0.9, 0.98), weight_decay=0.01),
    )
    corpus = corpus or WorldConfig(hours=100.0, question_hours=20.0, instruction_hours=20.0, speakers=100)
    return speech_aware_run("slm_13b", corpus, (answers,), decoding=AnswerDecoding(max_new=200, beams=4))


def adapter(
    channels: int,
    layers: TransformerAdapterConfig,
    stride: int,
    segments: CTCSegmentsConfig | None,
    loud: float | None = None,
) -> ChainConfig:
    """Spoken frames alone where there are `segments`, `stride` of them side by side, then `layers` over `channels`.

    `loud`: the factor by which what comes out begins as loud as words; None leaves it as it is.
    """
    spoken = () if segments is None else (CTCAdapterConfig(width=channels, segments=segments, dtype=layers.dtype),)
    stacked = LinearAdapterConfig(width=channels, stack=stride, dtype=layers.dtype)
    between = () if spoken and stride == 1 else (stacked,)
    gain = () if loud is None else (GainConfig(width=layers.width, start=loud, dtype=layers.dtype),)
    return ChainConfig(parts=(*spoken, *between, layers, *gain))
