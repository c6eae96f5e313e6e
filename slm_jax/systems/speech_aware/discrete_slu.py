"""DiscreteSLU: a text LM that reads speech as discrete units (Shon et al. 2024, arXiv 2406.09345).

    clip -> WavLM large, layer 21 -> 2,000 units -> compression -> table of vectors -> adapter -> Mistral 7B -> words

What is special. Speech is quantised before anything is learnt, so that a corpus is a table of small integers. Units are
no words of the language model: a table of their own and an adapter (a strided convolution, a Transformer, a linear map)
bring them into its space. Many tasks are learnt at once, spoken questions by instruction among them, for which
transcripts turned out not to be needed. `compression` says what is read: "none", every frame's unit; "dedup", without
repetitions; "bpe", byte pairs of those, learnt on the training split and kept with the run.

What is an interpretation. Neither code nor weights are public. That units come from an encoder by k-means, the
compressions, the table behind an adapter and the finding on transcripts are the paper's; layer 21 with 2,000 units and
6,000 byte pairs are those of ESPnet's recipes for discrete units, which share authors with it. The shape of the
adapter, the ranks of LoRA, what stands around the clip, rates, steps and batches are not told and are chosen here.

The other road. With `adapter=False` units are rows of the text model's table, as wide as its words and read as they
are (vocabulary expansion, for comparison; the paper does not go it): a vector for every id, none in the head.

Sizes: "7b" takes WavLM large and Mistral 7B from a hub and trains table, adapter and LoRA. "tiny" trains all parts
itself, without any download: HuBERT's first iteration in the place of WavLM, 200 units, a byte LM of LLaMA's form.
"""

from typing import Any

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.conv import ConvAdapterConfig
from slm_jax.adapters.rows import RowsConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.examples.open_book import OpenBookTaskConfig
from slm_jax.data.examples.speech_tasks import AnsweredTaskConfig, AskedTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.encoders.ssl_presets import log_mel_tiny, wavlm_large
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.nn.lora import LoRAConfig
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import llama, mistral
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.hubert_units import PUBLISHED_FIT_FRAMES, PUBLISHED_KMEANS
from slm_jax.systems.recipes.small_parts import LM, UNITS, text_lm, units_encoder
from slm_jax.systems.recipes.speech_aware import SpeechAwareConfig, speech_aware_run
from slm_jax.text.marked_tokens import SpecialsConfig
from slm_jax.text.templates import PLAIN, Template
from slm_jax.text.tokenizers import TokenizerFileConfig
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.post.clip_units import ClipUnitsConfig
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig, LayerOfStageConfig
from slm_jax.training.pre.unit_bpe import UnitBPEConfig
from slm_jax.training.stages import StageConfig

COMPRESSIONS = {"none": 1.0, "dedup": 0.9, "bpe": 0.55}
"""What is read -> ids for each frame that a row has room for; a clip that needs more is left out."""
FRAMES_HZ = 50
CLUSTERS, BYTE_PAIRS = "clusters", "byte_pairs"
KINDS = ("sentence", "question_answer", "instruction")
LORA = LoRAConfig(targets="lm/.*/attention/(query|value)", rank=8, alpha=16.0)
INSTRUCT = Template(begin="<s>", user=("[INST] ", " [/INST]"), assistant=("", "</s>"), between="\n")
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
REAL = "experiments/discrete_slu/real.json"
CARD = SystemCard(
    name="DiscreteSLU",
    paper="Shon et al. 2024",
    sizes=("tiny", "7b"),
    reads=("speech", "text"),
    writes=("text",),
    counted="answers",
    plans=("discrete_slu_7b_v5e",),
    figures=(
        KeptFigure(words="WER, speakers nobody heard", file=REAL, place=("tasks", "transcription", "wer")),
        KeptFigure(words="with other speech", file=REAL, place=("tasks", "transcription", "other_speech", "wer")),
    ),
)


def config(
    size: str = "tiny",
    compression: str = "bpe",
    transcripts: bool = True,
    adapter: bool = True,
    weights: str = "weights",
    **changes: object,
) -> SpeechAwareConfig:
    """A size of DiscreteSLU with some fields changed; raises `UserError` for an unknown size or compression.

    `transcripts`: whether transcription is one of the tasks. `weights`: the folder that holds `wavlm-large` and
    `mistral-7b-v0.1`.
    """
    require(size in CARD.sizes, "DiscreteSLU size", size, f"one of {', '.join(CARD.sizes)}{nearest(size, CARD.sizes)}")
    known = f"one of {', '.join(COMPRESSIONS)}{nearest(compression, COMPRESSIONS)}"
    require(compression in COMPRESSIONS, "compression", compression, known)
    tasks = TASKS if transcripts else MixtureConfig(parts=TASKS.parts[1:])
    made = tiny(compression, tasks) if size == "tiny" else published(compression, tasks, weights)
    if not adapter:
        stages = (*made.stages[:-1], without_adapter(made.answering))
        made = made.replace(name=f"{made.name}_rows", stages=stages)
    return made.replace(**changes)


def tiny(compression: str, tasks: MixtureConfig, corpus: CorpusConfig | None = None) -> SpeechAwareConfig:
    """Minutes on two cores: an encoder and a byte LM of 2 M parameters each, an adapter of half a million."""
    lm = llama("7b", vocabulary=264, layers=4, width=192, heads=4, kv_heads=4, hidden=512)
    units = FrameUnitsConfig(
        name=CLUSTERS,
        features=LayerOfStageConfig(stage=UNITS, layer=3),
        kmeans=KMeansConfig(clusters=200, iterations=30),
        postprocess=PostprocessConfig(normalise="layer_norm", smooth=3),
    )
    answers = answering(
        compression,
        tasks,
        ids=600 if compression == "bpe" else 200,
        channels=192,
        adapter=TransformerAdapterConfig(width=lm.width, layers=1, heads=4, hidden=512, sinusoids=True),
        parts=(PartSource(path="frozen/lm", source=f"stage:{LM}", expect=lm),),
        template=PLAIN,
        tokens=SpecialsConfig(),
        clip_s=6.0,
        words=296,
        train=TrainConfig(steps=800, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=40, betas=(0.9, 0.98), weight_decay=0.01),
    )
    pairs = (UnitBPEConfig(name=BYTE_PAIRS, units=CLUSTERS, vocabulary=600),) if compression == "bpe" else ()
    stages = (*units_encoder(log_mel_tiny()), units, *pairs, text_lm(lm, KINDS), answers)
    corpus = corpus or WorldConfig(hours=0.6, question_hours=0.3, instruction_hours=0.3, speakers=4)
    return whole_run(f"discrete_slu_tiny_{compression}", corpus, stages, AnswerDecoding(max_new=96))


def published(
    compression: str, tasks: MixtureConfig, weights: str, corpus: CorpusConfig | None = None
) -> SpeechAwareConfig:
    """WavLM large and Mistral 7B as they are; a table, an adapter and LoRA are trained."""
    half: dict[str, Any] = {"dtype": "bfloat16"}
    lm = mistral("7b", remat=True, **half)
    encoder = PartSource(path="frozen/encoder", source=f"{weights}/wavlm-large", expect=wavlm_large())
    units = FrameUnitsConfig(
        name=CLUSTERS,
        features=LayerOfPartConfig(part=encoder, layer=21),
        kmeans=PUBLISHED_KMEANS.replace(clusters=2000),
        fit_frames=PUBLISHED_FIT_FRAMES,
    )
    answers = answering(
        compression,
        tasks,
        ids=6000 if compression == "bpe" else 2000,
        channels=1024,
        adapter=TransformerAdapterConfig(width=lm.width, layers=4, heads=16, hidden=4096, sinusoids=True, **half),
        parts=(PartSource(path="frozen/lm", source=f"{weights}/mistral-7b-v0.1", expect=lm, **half),),
        template=INSTRUCT,
        tokens=TokenizerFileConfig(path=f"{weights}/mistral-7b-v0.1/tokenizer.json"),
        clip_s=30.0,
        words=512,
        train=TrainConfig(steps=50_000, mesh=MeshConfig(data=1, fsdp=-1, rules="fsdp")),
        batches=PipelineConfig(batch=256),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1_000, betas=(0.9, 0.98), weight_decay=0.01),
    )
    pairs = (UnitBPEConfig(name=BYTE_PAIRS, units=CLUSTERS, vocabulary=6000),) if compression == "bpe" else ()
    corpus = corpus or WorldConfig(hours=100.0, question_hours=20.0, instruction_hours=20.0, speakers=100)
    decoding = AnswerDecoding(max_new=200)
    return whole_run(f"discrete_slu_7b_{compression}", corpus, (units, *pairs, answers), decoding)


def answering(
    compression: str,
    tasks: MixtureConfig,
    ids: int,
    channels: int,
    adapter: TransformerAdapterConfig,
    words: int,
    clip_s: float,
    **settings: Any,
) -> SpeechAwareStageConfig:
    """The stage that learns to answer from `words` words and ids in `[0, ids)`, two of which become one vector."""
    most = round(COMPRESSIONS[compression] * clip_s * FRAMES_HZ)
    units = ClipUnitsConfig(
        stage=BYTE_PAIRS if compression == "bpe" else CLUSTERS, runs=compression != "none", most=most
    )
    conv = ConvAdapterConfig(layers=((channels, 3, 2, 1),), activation="gelu", dtype=adapter.dtype)
    return SpeechAwareStageConfig(
        name="answers",
        units=units,
        clip_s=clip_s,
        length=words + -(-most // 2),
        encoder=UnitEmbeddingConfig(units=ids, width=channels, dtype=adapter.dtype),
        adapter=ChainConfig(parts=(conv, adapter)),
        lora=LORA,
        tasks=tasks,
        **settings,
    )


def without_adapter(stage: SpeechAwareStageConfig) -> SpeechAwareStageConfig:
    """The same with a table as wide as the words of the language model, whose vectors are read as they are."""
    encoder, units, width = stage.encoder, stage.units, stage.adapter.width  # type: ignore[attr-defined]
    assert isinstance(encoder, UnitEmbeddingConfig) and units is not None and units.most is not None
    return stage.replace(
        encoder=encoder.replace(width=width, init_scale=0.02),
        adapter=RowsConfig(width=width),
        length=stage.length + units.most // 2,
    )


def whole_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], decoding: AnswerDecoding
) -> SpeechAwareConfig:
    """The run of these stages, judged by all tasks, whether they were learnt or not."""
    found = speech_aware_run(name, corpus, stages, decoding=decoding)
    judges = (TasksJudge(tasks=TASKS, longest_s=found.answering.clip_s), LossesJudge())
    return found.replace(judges=judges, keeps=KeptSpeechConfig(splits=("test",), kinds=KINDS))
