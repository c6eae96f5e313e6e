"""SALMONN: a text LM that hears speech, sounds and music through two encoders (Tang et al. 2023, arXiv 2310.13289).

    clip -> Whisper's encoder, BEATs -> side by side -> window Q-Former -> Vicuna with LoRA -> words

What is special. One encoder that was taught to transcribe and one that knows sounds; each window of 17 frames (0.33 s)
becomes one vector, 88 of them for any clip, since Whisper hears a whole window of 30 s. Queries, Q-Former, map, the
norms of both streams and LoRA are trained in all three stages: (1) transcripts and captions, (2) many instructions,
(3) activation tuning, a few long answers with LoRA counted less, after which the model does what it was not taught.

What differs. Padding has no effect here: the original hands the Q-Former whatever BEATs makes of a batch's padding,
and pads prompts in the middle of a row, which moves positions. Clips of more than 30 s are refused, not cut; one of
less than a second is not filled up to one. Beams are followed without drawing (the original also says top-p .9). The
cosine falls from the end of the warm-up on. What is asked, and what of, is the world's: captions tell loudness and
rate, the long answers of stage 3 are two tasks in one. How far LoRA is lowered in stage 3 and how long that lasts are
interpretations; the published recipe tells neither.

Sizes: "13b" (Vicuna v1.1) and "7b" (v1.5); their table has one row more, for a padding token that is never read
(`sequence_models.expansion.expanded` adds it), and `interop.salmonn` reads and writes the released file. "tiny" trains
its parts itself, without any download: in the place of Whisper an encoder that CTC taught letters, in that of BEATs one
that knows acoustic units, both over the length of the clip alone; windows of 5 frames; a byte LM of LLaMA's form.
"""

from typing import Any

from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.qformer import QFormerConfig
from slm_jax.adapters.window_qformer import WindowQFormerConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig, ComposedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.beats import beats_base
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, UNITS, letters_encoder, text_lm, units_encoder
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import VICUNA
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import StageConfig

LORA = LoRAConfig(targets="lm/.*/attention/(query|value)", rank=8, alpha=32.0, dropout=0.1)
LESS = 0.5
"""How much LoRA counts in stage 3."""
VICUNAS = {"7b": ("2-7b", "vicuna-7b-v1.5"), "13b": ("13b", "vicuna-13b-v1.1")}
"""Size -> LLaMA's shape, and the name of the folder."""
KINDS = ("sentence", "question_answer", "instruction")
TRANSCRIPTION = AskedTaskConfig(
    kinds=("sentence",), asks=("Recognize the speech and give me the transcription.", "Write down what is said.")
)
CAPTION = AskedTaskConfig(
    kinds=("sentence",),
    asks=("Please describe the audio.", "Describe how it sounds."),
    answers=("A voice speaks at a {speaking_rate} rate, its loudness is {energy}.",),
)
FIRST = MixtureConfig(
    parts=(
        PartConfig(name="transcription", weight=0.6, example=TRANSCRIPTION),
        PartConfig(name="caption", weight=0.4, example=CAPTION),
    )
)
SECOND = MixtureConfig(
    parts=(
        PartConfig(name="transcription", weight=0.3, example=TRANSCRIPTION),
        PartConfig(name="caption", weight=0.1, example=CAPTION),
        PartConfig(name="instructions", weight=0.4, example=AnsweredTaskConfig(kinds=("instruction",))),
        PartConfig(name="questions", weight=0.2, example=OpenBookTaskConfig()),
    )
)
THIRD = ComposedTaskConfig(kinds=("sentence",), tasks=(CAPTION, TRANSCRIPTION))
REAL = "experiments/salmonn/real.json"
CARD = SystemCard(
    name="SALMONN",
    paper="Tang et al. 2023",
    sizes=("tiny", *VICUNAS),
    reads=("speech", "text"),
    writes=("text",),
    plans=("salmonn_13b_v5e",),
    counted="activation",
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("tasks", "transcription", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("tasks", "transcription", "other_speech", "wer")),
    ),
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size of SALMONN with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published sizes: `whisper-large-v2`, `beats`, Vicuna.
    """
    require(
        size in CARD.sizes, "SALMONN size", size, f"must be one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}"
    )
    return (tiny() if size == "tiny" else published(size, weights)).replace(**changes)


def tiny(corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Minutes on two cores: two encoders and a byte LM of 2 M parameters each, a window Q-Former of half a million."""
    encoder = log_mel_tiny()
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    parts = (
        PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", expect=encoder),
        PartSource(path="frozen/encoder_1", source=f"stage:{UNITS}", expect=encoder),
        PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
    )
    first = SpeechAwareStageConfig(
        name="pretraining",
        parts=parts,
        join=JoinedConfig(widths=(encoder.width, encoder.width)),
        adapter=WindowQFormerConfig(
            width=lm.width,
            qformer=QFormerConfig(context_width=2 * encoder.width, width=128, heads=4, hidden=256),
            window=5,
        ),
        lora=LORA,
        template=VICUNA,
        tokens=SpecialsConfig(),
        tasks=FIRST,
        clip_s=6.0,
        length=384,
        train=TrainConfig(steps=600, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.05),
    )
    stages = (
        letters_encoder(encoder),
        *units_encoder(encoder),
        text_lm(lm, KINDS),
        *three_stages(first, 300, 20, 1e-4),
    )
    corpus = corpus or WorldConfig(
        hours=0.6, question_hours=0.3, instruction_hours=0.3, speakers=4, styles=("rate", "energy")
    )
    return whole_run("salmonn_tiny", corpus, stages, AnswerDecoding(max_new=120))


def published(size: str, weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """A published size with the recipe of the released code: 90,000 steps of 256 clips in stages 1 and 2."""
    shape, name = VICUNAS[size]
    half: dict[str, Any] = {"dtype": "bfloat16"}
    lm = llama(shape, vocabulary=32_001, remat=True, **half)
    ears = whisper("large-v2").encoder.replace(**half), beats_base().replace(**half)
    parts = (
        PartSource(path="frozen/encoder", source=f"{weights}/whisper-large-v2", take="encoder", expect=ears[0], **half),
        PartSource(path="frozen/encoder_1", source=f"{weights}/beats", expect=ears[1], **half),
        PartSource(path="frozen/lm", source=f"{weights}/{name}", expect=lm, **half),
    )
    first = SpeechAwareStageConfig(
        name="pretraining",
        parts=parts,
        join=JoinedConfig(widths=(ears[0].width, ears[1].width)),
        adapter=WindowQFormerConfig(width=lm.width, qformer=QFormerConfig(), window=17, queries=1, tail="drop"),
        lora=LORA,
        template=VICUNA,
        tokens=TokenizerFileConfig(path=f"{weights}/{name}/tokenizer.json"),
        tasks=FIRST,
        clip_s=30.0,
        length=448,
        train=TrainConfig(steps=90_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(
            learning_rate=3e-5,
            warmup_steps=3_000,
            start_fraction=1 / 30,
            final_fraction=1 / 3,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            clip=None,
        ),
    )
    corpus = corpus or WorldConfig(
        hours=100.0, question_hours=20.0, instruction_hours=20.0, speakers=100, styles=("rate", "energy")
    )
    decoding = AnswerDecoding(max_new=200, beams=4)
    return whole_run(f"salmonn_{size}", corpus, three_stages(first, 90_000, 3_000), decoding)


def three_stages(
    first: SpeechAwareStageConfig, second_steps: int, third_steps: int, third_rate: float | None = None
) -> tuple[SpeechAwareStageConfig, ...]:
    """The stage of transcripts and captions, instruction tuning from there, activation tuning from there.

    `third_rate`: the learning rate of the last one, None: as before. A small model forgets the rest of its tasks in
    twenty steps of 1e-3.
    """
    second = first.replace(
        name="instruction", tasks=SECOND, goes_on=first.name, train=first.train.replace(steps=second_steps)
    )
    optimizer = first.optimizer.replace(warmup_steps=0, learning_rate=third_rate or first.optimizer.learning_rate)
    train = first.train.replace(steps=third_steps)
    third = second.replace(
        name="activation", tasks=THIRD, goes_on=second.name, lora_factor=LESS, train=train, optimizer=optimizer
    )
    return first, second, third


def whole_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], decoding: AnswerDecoding
) -> SpeechAwareConfig:
    """The run of these stages, judged by what stage 2 taught."""
    keeps = KeptSpeechConfig(splits=("test",), kinds=KINDS)
    judges = (TasksJudge(tasks=SECOND), LossesJudge())
    return speech_aware_run(name, corpus, stages, decoding=decoding, judges=judges, keeps=keeps)
