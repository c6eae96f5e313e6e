"""DeSTA: speech described in words aligns it with a text LM that never changes (Lu et al. 2024, arXiv 2406.18871).

    clip -> Whisper's encoder, several layers -> layer-wise Q-Former, 64 vectors --.
         -> Whisper itself, its transcript -----------------------------------------+-> frozen LLaMA 3 -> words

What is special. The language model reads 64 vectors of a clip of any length and, behind them, what Whisper wrote down
of it: words come by the transcript, all else by the vectors. DeSTA learns captions, which say how something is said
beside what, and then instructions. DeSTA2 (arXiv 2409.20007) and DeSTA2.5-Audio (arXiv 2507.02768) learn what the
language model itself answers when it is given such a description in words instead of the clip: nothing has to be
changed in it, and instructions come by themselves. Only the Q-Former is trained.

Sizes: "2" is Whisper-small, layers 2, 5, 8, 11 in the count of DeSTA2 (entries of the tuple of hidden states, so that
11 is what layer 11 of 12 gives), two layers of Q-Former and LLaMA 3 8B; "2.5" is Whisper-large-v3, four layers in the
count of DeSTA2.5 (7 is what the eighth gives; the last one comes without the final norm), six layers of Q-Former and
LLaMA 3.1 8B. `interop.desta` reads and writes the files of both. "tiny" trains its parts itself, without a download: in
Whisper's place an encoder that CTC taught letters, whose greedy reading is the transcript; a byte LM of LLaMA's form,
which learns LoRA beside captions and instructions, since it is too small to do anything unasked.

What differs. What does not fit is left out, where the original cuts transcripts (100 ids) and rows (300). What is
asked, and of what, is the world's; descriptions have the released form with what the world knows of a voice. DeSTA2.5
leaves out the transcript where a detector hears no voice; nothing here is without one. In DeSTA2 a clip is a message of
its own in front of the question, in DeSTA2.5 it stands where the question puts it, here in front. The system part of
LLaMA 3.1's own template, which names dates, is left out unless somebody says something there. How long DeSTA2 learns,
and at which rate, is an interpretation: that of DeSTA2.5.
"""

from typing import Any

from slm_jax.adapters.layerwise_qformer import BERT, LayerwiseQFormerConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.described_tasks import DescribedTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.generation.whisper_words import Transcription
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.nn.positions import RopeScaling
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, letters_encoder, text_lm
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import DESTA2, DESTA25, PLAIN, Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.clip_words import ClipWordsConfig
from slm_jax.training.post.lm_targets import LMTargetsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import StageConfig

KINDS = ("sentence", "instruction")
TRANSCRIPTION = AskedTaskConfig(
    kinds=("sentence",), asks=("Write down what is said.", "Transcribe the recording.", "What are the words?")
)
CAPTION = AskedTaskConfig(
    kinds=("sentence",),
    asks=("Describe the audio.", "What can you hear?"),
    answers=("Somebody says {text} The speaking rate is {speaking_rate}, the volume is {energy}.",),
)
RATE = AskedTaskConfig(
    kinds=("sentence",), asks=("Is it spoken in a slow, a normal or a fast way?",), answers=("{speaking_rate}",)
)
VOLUME = AskedTaskConfig(kinds=("sentence",), asks=("Is the speech soft, normal or loud?",), answers=("{energy}",))
INSTRUCTION = AnsweredTaskConfig(kinds=("instruction",))
TUNING = MixtureConfig(
    parts=(
        PartConfig(name="transcription", weight=0.2, example=TRANSCRIPTION),
        PartConfig(name="caption", weight=0.2, example=CAPTION),
        PartConfig(name="rate", weight=0.15, example=RATE.replace(counts=4.0)),
        PartConfig(name="volume", weight=0.15, example=VOLUME.replace(counts=4.0)),
        PartConfig(name="instructions", weight=0.3, example=INSTRUCTION),
    )
)
DESCRIPTION = "{span} {text} (Speaking speed: {speaking_rate}, Volume: {energy})"
"""The form of the released data, with what the world knows."""
JUDGED = MixtureConfig(
    parts=(
        PartConfig(name="transcription", weight=0.4, example=TRANSCRIPTION),
        PartConfig(name="rate", weight=0.3, example=RATE),
        PartConfig(name="volume", weight=0.3, example=VOLUME),
    )
)
SCALED = RopeScaling(kind="llama3", factor=8.0)
CARD = SystemCard(
    name="DeSTA",
    paper="Lu et al. 2024",
    sizes=("tiny", "2", "2.5"),
    reads=("speech", "text"),
    writes=("text",),
    counted="answers",
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> SpeechAwareConfig:
    """A size of DeSTA with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published sizes: `whisper-small`, `llama-3-8b-instruct` or
    `whisper-large-v3`, `llama-3.1-8b-instruct`.
    """
    require(
        size in CARD.sizes, "DeSTA size", size, f"must be one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}"
    )
    made = {"tiny": tiny, "2": lambda: desta2(weights), "2.5": lambda: desta25(weights)}[size]()
    return made.replace(**changes)


def tiny(corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Minutes on two cores: an encoder and a byte LM of 2 M parameters each, captions, then instructions."""
    encoder = log_mel_tiny()
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    trunk = BERT.replace(context_width=encoder.width, width=128, heads=4, hidden=256, dropout=0.0)
    captions = SpeechAwareStageConfig(
        name="captions",
        parts=(
            PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", take="encoder", expect=encoder),
            PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
        ),
        hears=(LayersConfig(chosen=every(encoder.layers, 2)),),
        adapter=LayerwiseQFormerConfig(width=lm.width, layers=2, qformer=trunk, queries=16),
        heard=ClipWordsConfig(source=f"stage:{LETTERS}"),
        lora=LoRAConfig(targets="lm/.*/attention/(query|key|value)", rank=16, alpha=16.0),
        template=PLAIN.replace(speech=("<start_audio>", "<end_audio>"), heard="{words}"),
        tokens=SpecialsConfig(),
        tasks=CAPTION,
        clip_s=6.0,
        length=448,
        train=TrainConfig(steps=600, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.01),
    )
    stages = (
        letters_encoder(encoder).replace(with_head=True),
        text_lm(lm, KINDS),
        captions,
        tuned(captions, 400),
    )
    corpus = corpus or WorldConfig(hours=0.6, instruction_hours=0.3, speakers=4, styles=("rate", "energy"))
    return whole_run("desta_tiny", corpus, stages, AnswerDecoding(max_new=120))


def tuned(captions: SpeechAwareStageConfig, steps: int) -> SpeechAwareStageConfig:
    """Instruction tuning from there: what is said, how, and instructions."""
    return captions.replace(
        name="answers", tasks=TUNING, goes_on=captions.name, train=captions.train.replace(steps=steps)
    )


def desta2(weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """DeSTA2 with Whisper-small and LLaMA 3 8B."""
    layers = LayersConfig(chosen=(2, 5, 8, 11), final_norm=True)
    names = ("whisper-small", "llama-3-8b-instruct")
    decoding = AnswerDecoding(max_new=128, temperature=0.6, top_p=0.9)
    return released("desta_2", weights, names, layers, 2, DESTA2, corpus, decoding)


def desta25(weights: str, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """DeSTA2.5-Audio with Whisper-large-v3 and LLaMA 3.1 8B."""
    layers = LayersConfig(chosen=(8, 16, 24, 32))
    names = ("whisper-large-v3", "llama-3.1-8b-instruct")
    decoding = AnswerDecoding(max_new=512, temperature=0.7, top_p=0.9)
    return released("desta_2.5", weights, names, layers, 6, DESTA25, corpus, decoding)


def released(
    name: str,
    weights: str,
    names: tuple[str, str],
    layers: LayersConfig,
    depth: int,
    template: Template,
    corpus: CorpusConfig | None,
    decoding: AnswerDecoding,
) -> SpeechAwareConfig:
    """Answers of the language model to descriptions, and the stage that learns them: five times five million items."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    ear, mouth = names
    encoder = whisper(ear.removeprefix("whisper-")).encoder.replace(**half)
    lm = llama("3-8b", remat=True, rope_scaling=SCALED if "3.1" in mouth else None, **half)
    trunk = BERT.replace(
        context_width=encoder.width, width=encoder.width, heads=encoder.heads, layers=depth, dtype="bfloat16"
    )
    part = PartSource(path="frozen/lm", source=f"{weights}/{mouth}", expect=lm, **half)
    tokens = TokenizerFileConfig(path=f"{weights}/{mouth}/tokenizer.json")
    targets = LMTargetsConfig(
        name="targets",
        part=part,
        tokens=tokens,
        template=template,
        tasks=described(),
        sampling=SamplingConfig(max_new=192, temperature=0.0),
    )
    answers = SpeechAwareStageConfig(
        name="answers",
        parts=(
            PartSource(path="frozen/encoder", source=f"{weights}/{ear}", take="encoder", expect=encoder, **half),
            part,
        ),
        hears=(layers,),
        adapter=LayerwiseQFormerConfig(width=lm.width, layers=len(layers.chosen or ()), qformer=trunk),
        heard=ClipWordsConfig(source=f"{weights}/{ear}", transcription=Transcription(max_new=128), **half),
        template=template,
        tokens=tokens,
        tasks=targets.learnt,
        clip_s=30.0,
        length=512,
        train=TrainConfig(steps=258_500, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=96),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, warmup_steps=5_000, final_fraction=0.0, betas=(0.9, 0.98), weight_decay=0.01, clip=1.0
        ),
    )
    corpus = corpus or WorldConfig(hours=100.0, instruction_hours=20.0, speakers=100, styles=("rate", "energy"))
    return whole_run(name, corpus, (targets, answers), decoding)


def described() -> MixtureConfig:
    """What the language model is asked about descriptions: what they say, how it is said, and anything at all."""
    asked = {
        "caption": (0.4, CAPTION),
        "transcription": (0.2, TRANSCRIPTION),
        "rate": (0.2, RATE),
        "volume": (0.2, VOLUME),
    }
    return MixtureConfig(
        parts=tuple(
            PartConfig(name=name, weight=weight, example=DescribedTaskConfig(task=task, form=DESCRIPTION))
            for name, (weight, task) in asked.items()
        )
    )


def every(layers: int, count: int) -> tuple[int, ...]:
    """So many layers out of all, evenly, the last one among them."""
    return tuple(layers * (place + 1) // count for place in range(count))


def whole_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], decoding: AnswerDecoding
) -> SpeechAwareConfig:
    """The run of these stages, judged by what is said and how."""
    keeps = KeptSpeechConfig(splits=("test",), kinds=KINDS)
    judges = (TasksJudge(tasks=JUDGED), LossesJudge())
    return speech_aware_run(name, corpus, stages, decoding=decoding, judges=judges, keeps=keeps)
