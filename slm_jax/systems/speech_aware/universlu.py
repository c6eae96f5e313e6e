"""UniverSLU, one Whisper for many tasks of spoken language understanding (Arora et al. 2024, arXiv 2310.02973).

    clip, "<|en|> <|rate|> <|world|>"             -> Whisper -> "slow"
    clip, "Is the speech slow, normal or fast?"   -> Whisper -> "slow"

What is special: no adapter and no other language model. All of Whisper (medium) is tuned on all tasks at once, and what
is asked stands in the decoder's prefix: specifiers of language, task and data set, which get rows of their own in its
table, or an instruction in plain words with the options, which needs none. Answers are text, so that a task with labels
and one with words differ in nothing; `em:neu SEP transcript` is an answer of emotion recognition. The loss counts what
comes after the prefix. Answers are found by a search with 20 beams and a bonus of 0.2 for each token (ESPnet's recipe).

What differs, and why. The published model learnt 12 kinds of task from 17 data sets in 9 languages, none of which is
here: the tasks are those of the synthetic world, and a manifest brings others as data (`AskedTaskConfig`, whose `asks`
are specifiers or wordings). One model answers both forms, where the paper has one for each: the second stage goes on
from the first with both. Language identification, which the released recipe asks right behind the first token, has no
prefix here. Interpretation: learning rates, steps, batches and the weight of CTC, which no source states.

Sizes: "medium" as published, "base" for two CPU cores, both from the weights of OpenAI (`start_from`: a folder; None:
the hub's), and "tiny", whose Whisper is trained from nothing on bytes, at first to transcribe.
"""

from typing import Any

from slm_jax.assemblies.whisper import WhisperConfig, whisper, whisper_decoder
from slm_jax.audio.mel import whisper_log_mel
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpora.world_grammar import TOPICS
from slm_jax.data.corpora.world_instructions import TASKS as INSTRUCTIONS
from slm_jax.data.corpus import WorldConfig
from slm_jax.data.examples.world_labels import WorldTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.serving.task_whisper import TaskDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.whisper_tasks import WhisperTasksConfig, whisper_tasks_run
from slm_jax.text.whisper_tokens import PlainPromptsConfig, WhisperFolderConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.whisper_rows import AuxiliaryCTCConfig
from slm_jax.training.post.whisper_tuning import WhisperTuningStageConfig

BASE = "experiments/universlu/base.json"
CARD = SystemCard(
    name="UniverSLU",
    paper="Arora et al. 2024",
    sizes=("tiny", "base", "medium"),
    reads=("speech", "text"),
    writes=("text",),
    counted="instructions",
    plans=("universlu_medium_v5e",),
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=BASE, place=("tasks", "transcription", "wer")),
        KeptFigure(words="with other speech", file=BASE, place=("tasks", "transcription", "other_speech", "wer")),
        KeptFigure(words="topics right", file=BASE, place=("tasks", "intent", "exact")),
        KeptFigure(words="with other speech", file=BASE, place=("tasks", "intent", "other_speech", "exact")),
    ),
)
DATA_SET = "<|world|>"
SPECIFIERS = ("<|rate|>", "<|energy|>", "<|voice|>", "<|last_word|>", "<|intent|>", DATA_SET)
OPTIONS = ", ".join(sorted(set(TOPICS)))
WORDINGS = {name: INSTRUCTIONS[name].asks for name in ("transcription", "rate", "energy", "voice", "last_word")} | {
    "intent": tuple(f"{ask} {OPTIONS}." for ask in ("What is it about?", "Name the topic.", "Which intent is it?"))
}
"""Task -> what may be asked in words; where there are options they stand in the question."""
WORLD = WorldConfig(hours=2.0, speakers=8, styles=("rate", "energy"))
PUBLISHED_DECODING = TaskDecoding(beams=20, token_bonus=0.2, length_penalty=0.0)
CTC = AuxiliaryCTCConfig(tasks=("transcription", "transcription_in_words"))


def task(name: str, in_words: bool) -> PartConfig:
    """One task of the world, asked by specifiers or in words; transcription weighs twice as much as any other."""
    spoken = name == "transcription"
    specifiers = f"<|{'transcribe' if spoken else name}|> {DATA_SET}"
    return PartConfig(
        name=f"{name}_in_words" if in_words else name,
        weight=2.0 if spoken else 1.0,
        example=WorldTaskConfig(
            asks=WORDINGS[name] if in_words else (specifiers,), answers=("{text}" if spoken else f"{{{name}}}",)
        ),
    )


TRANSCRIPTION = task("transcription", False)
BY_SPECIFIERS = MixtureConfig(parts=tuple(task(name, False) for name in WORDINGS))
IN_BOTH_FORMS = MixtureConfig(parts=(*BY_SPECIFIERS.parts, *(task(name, True) for name in WORDINGS)))


def config(size: str = "tiny", start_from: str | None = None, **changes: object) -> WhisperTasksConfig:
    """A size of UniverSLU with some fields changed; raises `UserError` for an unknown size."""
    sizes = CARD.sizes
    require(size in sizes, "UniverSLU size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    source = start_from or f"hub:openai/whisper-{size}"
    made = tiny() if size == "tiny" else base(source) if size == "base" else medium(source)
    return made.replace(**changes)


def tiny() -> WhisperTasksConfig:
    """A Whisper of 1.5 M parameters over bytes and clips of 6 s: it learns to transcribe, then the tasks."""
    tokens, batches = PlainPromptsConfig(), PipelineConfig(batch=8)
    transcribe = TRANSCRIPTION.replace(example=WorldTaskConfig(asks=("<|transcribe|>",)))
    first = WhisperTuningStageConfig(
        name="transcription",
        model=tiny_whisper(tokens.size),
        tokens=tokens,
        tasks=MixtureConfig(parts=(transcribe,)),
        ctc=CTC.replace(weight=0.5, tasks=("transcription",)),
        clip_s=6.0,
        length=64,
        train=TrainConfig(steps=1200, evaluate_every=250),
        batches=batches,
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, betas=(0.9, 0.98), weight_decay=0.01),
    )
    tasks = tuning(
        tokens,
        clip_s=first.clip_s,
        length=192,
        goes_on=first.name,
        train=TrainConfig(steps=600, evaluate_every=150),
        batches=batches,
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=50, betas=(0.9, 0.98), weight_decay=0.01),
    )
    return whisper_tasks_run("universlu_tiny", WORLD, (first, *tasks))


def tiny_whisper(tokens: int) -> WhisperConfig:
    """Two layers of encoder more than of decoder: most of the work is to hear."""
    encoder = WhisperEncoderConfig(
        mel=whisper_log_mel(40), layers=4, width=128, heads=4, hidden=512, max_frames=300, trim=True, dropout=0.1
    )
    return WhisperConfig(encoder=encoder, decoder=whisper_decoder(tokens, 2, 128, 4).replace(dropout=0.1))


def base(source: str) -> WhisperTasksConfig:
    """Whisper-base on two cores: its encoder hears clips as long as they are, at a fifth of the cost."""
    shape = whisper("base")
    stages = tuning(
        WhisperFolderConfig(folder=source),
        clip_s=6.0,
        length=96,
        part=begun_from(source, shape.replace(encoder=shape.encoder.replace(trim=True))),
        train=TrainConfig(steps=300, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=5e-5, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.01),
    )
    return whisper_tasks_run("universlu_base", WORLD, stages)


def medium(source: str) -> WhisperTasksConfig:
    """As published: whole windows, as the encoder learnt to hear."""
    shape = whisper("medium", remat=True, dtype="bfloat16")
    stages = tuning(
        WhisperFolderConfig(folder=source),
        clip_s=30.0,
        length=128,
        part=begun_from(source, shape.replace(encoder=shape.encoder.replace(remat=True, dtype="bfloat16"))),
        train=TrainConfig(steps=20_000, evaluate_every=1000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(learning_rate=1e-5, warmup_steps=1000, betas=(0.9, 0.98), weight_decay=0.01),
    )
    corpus = WORLD.replace(hours=100.0, speakers=100)
    return whisper_tasks_run("universlu_medium", corpus, stages, decoding=PUBLISHED_DECODING)


def begun_from(source: str, shape: WhisperConfig) -> PartSource:
    """All of a Whisper, to be trained on."""
    return PartSource(path="params/whisper", source=source, frozen=False, expect=shape)


def tuning(
    tokens: PlainPromptsConfig | WhisperFolderConfig, **settings: Any
) -> tuple[WhisperTuningStageConfig, WhisperTuningStageConfig]:
    """All tasks by specifiers from where `settings` begin, then in both forms from there."""
    specifiers = WhisperTuningStageConfig(
        name="specifiers",
        tasks=BY_SPECIFIERS,
        tokens=tokens,
        specifiers=SPECIFIERS,
        ctc=CTC.replace(tasks=("transcription",)),
        **settings,
    )
    both = {"tasks": IN_BOTH_FORMS, "ctc": CTC, "part": None, "goes_on": specifiers.name}
    return specifiers, specifiers.replace(name="instructions", **both)
