"""LTU-AS: a text LM that reads a transcript and hears the rest (Gong et al. 2023, arXiv 2309.14405).

    clip -> Whisper, all layers, means of 0.4 s -> TLTR -> norm, map -> before the prompt |
    clip -> Whisper's words -> in the prompt                                              | Vicuna with LoRA -> words

What is special. What is said comes as text, by a recogniser; what else is heard comes as 25 vectors for ten seconds,
which a Transformer over time and one over layers choose out of all of Whisper's layers. A curriculum of three stages:
(1) the map alone on questions with one right answer, (2) TLTR, map and LoRA on the same, (3) all of them on everything,
open questions too. The loss is over all words of a row, those of the question and the transcript as well.

What differs. Clips of more than ten seconds are refused, not cut; texts of more than `length` entries too. The loss of
questions and transcripts and of answers has the same weight, as published, since the labels do not say otherwise.
Whisper's features are computed here and kept, in float32; the released ones are of half precision, of one kind of GPU.
A conversation without a transcript gets one from the run's own transcriber, a published one from whom you like.
Interpretations: TLTR begins anew here, while the released one began with that of Whisper-AT; steps of stages 1 and 2,
whose amount of data is not in the code; the learning rate falls linearly after the warm-up, as the library that was
used has it unless told otherwise. What is asked, and what of, is the world's.

Sizes: "7b" (Whisper large, Vicuna; `interop.ltu_as` reads and writes the released file), and "tiny", which trains its
parts itself: an encoder that CTC taught letters, trimmed to the clip, which is its transcriber, too, and a byte LM.
"""

from typing import Any

from slm_jax.adapters.tltr import TLTRConfig
from slm_jax.assemblies.whisper import whisper
from slm_jax.core.config import Config
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.speech_tasks import (
    AnsweredTaskConfig,
    AskedTaskConfig,
    ComposedTaskConfig,
    SpeechTaskConfig,
)
from slm_jax.data.examples.transcript_tasks import TranscriptTaskConfig
from slm_jax.data.examples.world_labels import WorldTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.layer_states import LayersConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.sequence_models.presets import llama
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import SystemCard
from slm_jax.systems.recipes.small_parts import LETTERS, LM, letters_encoder, text_lm
from slm_jax.systems.recipes.transcribed import TranscribedConfig
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import LTU_AS
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import StageConfig

LORA = LoRAConfig(targets="lm/.*/attention/(query|value)", rank=8, alpha=16.0, dropout=0.05)
TLTR_ALONE = r"adapter/over_(time|layers)"
"""What stage 1 leaves as it is."""
HEARD = LayersConfig(pool=20, longest=500)
"""All layers of an encoder in means of 0.4 s, of ten seconds at most."""
FIRST, SECOND, THIRD = "map", "closed", "open"
"""Names of the stages."""
SPOKEN = ("sentence",)
KINDS = ("sentence", "instruction")
CLOSED = "Closed-ended question: "
STYLES = ("rate", "energy")
LOUDNESS = AskedTaskConfig(kinds=SPOKEN, asks=(f"{CLOSED}How loud is the speech?",), answers=("{energy}",))
RATE = AskedTaskConfig(kinds=SPOKEN, asks=(f"{CLOSED}How fast is the speech?",), answers=("{speaking_rate}",))
VOICE = WorldTaskConfig(kinds=SPOKEN, asks=(f"{CLOSED}Is the voice deep or high?",), answers=("{voice}",))
TEXT = AskedTaskConfig(kinds=SPOKEN, asks=(f"{CLOSED}Can you identify the spoken text?",))
DESCRIPTION = ComposedTaskConfig(
    kinds=SPOKEN,
    tasks=(
        AskedTaskConfig(asks=("Describe how it is spoken.",), answers=("The speech is {energy} and {speaking_rate}.",)),
        AskedTaskConfig(asks=("Write down what is said.",), answers=("It says: {text}",)),
    ),
)
INSTRUCTIONS = AnsweredTaskConfig(kinds=("instruction",))
CARD = SystemCard(
    name="LTU-AS",
    paper="Gong et al. 2023",
    sizes=("tiny", "7b"),
    reads=("speech", "text"),
    writes=("text",),
    counted=THIRD,
)


def asked(**tasks: tuple[float, SpeechTaskConfig]) -> MixtureConfig:
    """Tasks by name with the share of each, all with a transcript beside the clip."""
    parts = (
        PartConfig(name=name, weight=weight, example=TranscriptTaskConfig(task=task))
        for name, (weight, task) in tasks.items()
    )
    return MixtureConfig(parts=tuple(parts))


CLOSED_ENDED = asked(loudness=(0.3, LOUDNESS), rate=(0.3, RATE), voice=(0.2, VOICE), text=(0.2, TEXT))
EVERYTHING = asked(
    loudness=(0.15, LOUDNESS),
    rate=(0.15, RATE),
    voice=(0.1, VOICE),
    text=(0.1, TEXT),
    description=(0.2, DESCRIPTION),
    instructions=(0.3, INSTRUCTIONS),
)


def config(size: str = "tiny", weights: str = "weights", **changes: object) -> TranscribedConfig:
    """A size of LTU-AS with some fields changed; raises `UserError` for an unknown size.

    `weights`: the folder that holds the parts of the published size: `whisper-large` (version 1), `vicuna-7b-v1.1`, and
    the transcriber `whisper-large-v2`.
    """
    sizes = CARD.sizes
    require(size in sizes, "LTU-AS size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return (tiny() if size == "tiny" else published(weights)).replace(**changes)


def tiny(corpus: CorpusConfig | None = None) -> TranscribedConfig:
    """Minutes on two cores: an encoder that knows letters and a byte LM of 2 M parameters each."""
    encoder = log_mel_tiny()
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    first = SpeechAwareStageConfig(
        name=FIRST,
        parts=(
            PartSource(path="frozen/encoder", source=f"stage:{LETTERS}", expect=encoder),
            PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),
        ),
        hears=(HEARD,),
        adapter=TLTRConfig(width=lm.width, layers=encoder.layers),
        kept=TLTR_ALONE,
        template=LTU_AS,
        tokens=SpecialsConfig(),
        tasks=CLOSED_ENDED,
        targets="all",
        clip_s=6.0,
        length=384,
        train=TrainConfig(steps=200, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=20, betas=(0.9, 0.98)),
    )
    stages = (letters_encoder(encoder), text_lm(lm, KINDS), *curriculum(first, (400, 400), (1e-3, 1e-3)))
    world = WorldConfig(hours=0.6, instruction_hours=0.3, speakers=4, styles=STYLES)
    decoding = AnswerDecoding(max_new=120)
    return whole_run("ltu_as_tiny", corpus or world, stages, decoding, f"stage:{LETTERS}")


def published(weights: str, corpus: CorpusConfig | None = None) -> TranscribedConfig:
    """The published size: Whisper large, whole windows of which ten seconds are heard, and Vicuna of 7 B."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    lm, ears = llama("7b", remat=True, **half), whisper("large").encoder
    vicuna = f"{weights}/vicuna-7b-v1.1"
    first = SpeechAwareStageConfig(
        name=FIRST,
        parts=(
            PartSource(path="frozen/encoder", source=f"{weights}/whisper-large", take="encoder", expect=ears),
            PartSource(path="frozen/lm", source=vicuna, expect=lm, **half),
        ),
        hears=(HEARD,),
        adapter=TLTRConfig(width=lm.width, layers=ears.layers),
        kept=TLTR_ALONE,
        template=LTU_AS,
        tokens=TokenizerFileConfig(path=f"{vicuna}/tokenizer.json"),
        tasks=CLOSED_ENDED,
        targets="all",
        clip_s=10.0,
        length=256,
        train=TrainConfig(steps=20_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="linear", warmup_steps=100),
    )
    world = WorldConfig(hours=100.0, instruction_hours=20.0, speakers=100, styles=STYLES)
    decoding = AnswerDecoding(max_new=500, temperature=0.1, top_p=0.95, top_k=500, repetition_penalty=1.1)
    stages = curriculum(first, (20_000, 37_500), (1e-4, 2e-4))
    return whole_run("ltu_as_7b", corpus or world, stages, decoding, f"{weights}/whisper-large-v2")


def curriculum(
    first: SpeechAwareStageConfig, steps: tuple[int, int], rates: tuple[float, float], lora: LoRAConfig = LORA
) -> tuple[SpeechAwareStageConfig, ...]:
    """The map alone, then TLTR and LoRA with it on the same questions, then everything; steps and rates of the last."""

    def later(before: SpeechAwareStageConfig, name: str, place: int, tasks: Config) -> SpeechAwareStageConfig:
        return before.replace(
            name=name,
            goes_on=before.name,
            kept=None,
            lora=lora,
            tasks=tasks,
            train=before.train.replace(steps=steps[place]),
            optimizer=before.optimizer.replace(learning_rate=rates[place]),
        )

    second = later(first, SECOND, 0, first.tasks)
    return first, second, later(second, THIRD, 1, EVERYTHING)


def whole_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], decoding: AnswerDecoding, transcriber: str
) -> TranscribedConfig:
    """The run of these stages, judged by all that stage 3 taught."""
    return TranscribedConfig(
        name=name,
        corpus=corpus,
        stages=stages,
        answers=THIRD,
        decoding=decoding,
        transcriber=transcriber,
        judges=(TasksJudge(tasks=EVERYTHING), LossesJudge()),
        keeps=KeptSpeechConfig(splits=("test",), kinds=KINDS),
    )
