"""AudioLM, language modelling in three stages (Borsos et al. 2022): what is said, how it sounds, and all its detail.

    waveform -> semantic units ---------> model of units -> model of coarse codes -> model of fine codes -> codec
             -> codes of a codec, which the last two learn

What differs from the paper. Its w2v-BERT was never released: the published recipe takes w2v-BERT 2.0 at 50 Hz (the
paper's units come at 25), the tiny twin a HuBERT of its own. The coarse model ends what it writes with a token of its
own, since units without repetitions do not tell how long they last; the paper writes a fixed length. Learning rates
were never told. The paper's stages have 0.3 B parameters each, which the widths that it gives do not add up to
(`sequence_models.presets.audiolm_stage`).

Sizes: "published" and "tiny".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from slm_jax.assemblies.codec_presets import soundstream
from slm_jax.core.errors import nearest, require
from slm_jax.core.part_source import PartSource
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.decoders.discriminators import DiscriminatorsConfig
from slm_jax.decoders.spectral_discriminators import JudgesConfig, STFTDiscriminatorsConfig
from slm_jax.encoders.w2v_bert import w2v_bert_2
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.generation.by_cascade import Model
from slm_jax.judges.cascade import CascadeJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.voices import VoicesJudge
from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.quantizers.kmeans import KMeansConfig
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.sequence_models.presets import audiolm_stage
from slm_jax.serving.cascade_speech_lm import CascadeDecoding, CascadeSpeechLM, TokenStages
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.recipes.small_codec import small_codec
from slm_jax.systems.recipes.small_parts import t5_rates, units_encoder
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.cascade_lm import CascadeLMConfig, CascadeTokensConfig
from slm_jax.training.pre.codec import CodecStageConfig
from slm_jax.training.pre.codec_tokens import CodecTokensConfig
from slm_jax.training.pre.frame_units import FrameUnitsConfig, LayerOfPartConfig, LayerOfStageConfig
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import token_stage

PASSES = ("semantic", "coarse", "fine")
"""Names of the stages that train the three models."""
SMALL_PASSES = ("semantic", "coarse_long", "fine")
"""Those of the small models, whose coarse one is trained in three stages."""
WRITES = t5_rates(1e-3, queries=1.5e-4, warmup_steps=50)
"""Of the small models."""
WORLD = "experiments/audiolm/figures.json"
CARD = SystemCard(
    name="AudioLM",
    paper="Borsos et al. 2022",
    sizes=("tiny", "published"),
    reads=("speech",),
    writes=("speech",),
    plans=("audiolm_semantic_v5e", "audiolm_coarse_v5e", "audiolm_fine_v5e"),
    figures=(
        KeptFigure(words="right voice goes on", file=WORLD, place=("voices", "continuation", "accuracy")),
        KeptFigure(words="held to another prompt", file=WORLD, place=("voices", "other openings", "accuracy")),
        KeptFigure(words="nats of coarse codes 0", file=WORLD, place=("cascade", "nats", "codes_0", "model")),
        KeptFigure(words="bigram", file=WORLD, place=("cascade", "nats", "codes_0", "bigram")),
        KeptFigure(words="WER of acoustic generation", file=WORLD, place=("cascade", "words", "acoustic", "wer")),
    ),
    counted="coarse",
)


class SmallTraining(NamedTuple):
    """How a small model of pass `number` is trained."""

    number: int
    longest_s: float
    steps: int
    batch: int
    rate: float
    start_from: str | None = None


class AudioLMConfig(RunConfig):
    """The stages of a run that make up the system, by name, and how it speaks and is judged by default.

    `prompt_s`: seconds of speech that are continued.
    """

    passes: tuple[str, ...] = PASSES
    prompt_s: float = 3.0
    decoding: CascadeDecoding = CascadeDecoding()
    judges: tuple[JudgeConfig, ...] = (CascadeJudge(), VoicesJudge(), PairsJudge(), LossesJudge())

    def load(self, context: StageContext) -> CascadeSpeechLM:
        """The trained system."""
        folders = [context.finished(name) for name in self.passes]
        stages = [CascadeLMConfig.of(folder) for folder in folders]
        tokens = stages[0].tokens
        codes = CodecTokensConfig.of(context.finished(tokens.codes))
        return CascadeSpeechLM(
            tokenizer=token_stage(context, tokens.units).tokenizer(context),
            codec=codes.tokenizer(context),
            cascade=tokens.found(context),
            models=tuple(
                Model(stage.model.make(), trained(folder)[1]["params"])
                for stage, folder in zip(stages, folders, strict=True)
            ),
            decoding=self.decoding,
            prompt_s=self.prompt_s,
            origin=TokenStages(*tokens.stages),
        )

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> Any:
        return super().prompts(context, count, self.prompt_s if seconds is None else seconds)


def config(size: str = "tiny", **changes: object) -> AudioLMConfig:
    """A size of AudioLM with some fields changed; raises `UserError` for an unknown size."""
    sizes: dict[str, Callable[[], AudioLMConfig]] = {"tiny": tiny, "published": published}
    require(size in sizes, "AudioLM size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return sizes[size]().replace(**changes)


def tiny(corpus: CorpusConfig = WorldConfig(hours=0.8, speakers=4), clusters: int = 100) -> AudioLMConfig:
    """A HuBERT and a streaming codec of its own, and three models of 2 M parameters over four voices."""
    mfcc, hubert = units_encoder(clusters=clusters)
    hubert = hubert.replace(name="hubert")
    units = FrameUnitsConfig(
        name="units",
        features=LayerOfStageConfig(stage="hubert", layer=4),
        kmeans=KMeansConfig(clusters=clusters, iterations=30),
        postprocess=PostprocessConfig(normalise="standardise"),
    )
    stages = (mfcc, hubert, units, *small_codec(), *small_models(clusters))
    return AudioLMConfig(name="audiolm_tiny", corpus=corpus, stages=stages, passes=SMALL_PASSES, prompt_s=1.2)


def small_models(clusters: int, codes: int = 256, books: int = 6, coarse: int = 3) -> tuple[CascadeLMConfig, ...]:
    """Four layers of 192 for each pass. Distances reach as far as a row is long, so that codes find their units.

    The coarse model begins with short stretches: in rows of three seconds it does not find its units in this time
    (`experiments/audiolm`).
    """
    tokens = CascadeTokensConfig(coarse=coarse, chunk_s=1.0)
    plans = {
        "semantic": SmallTraining(0, 4.0, 300, 16, 1e-3),
        "coarse_short": SmallTraining(1, 1.0, 2500, 24, 1e-3),
        "coarse": SmallTraining(1, 3.0, 700, 8, 5e-4, "coarse_short"),
        "coarse_long": SmallTraining(1, 4.0, 1000, 6, 5e-4, "coarse"),
        "fine": SmallTraining(2, 1.0, 1000, 8, 2e-3),
    }
    shape: dict[str, Any] = {"layers": 4, "width": 192, "heads": 4, "hidden": 768}
    shape |= {"attention_dropout": 0.0, "activation_dropout": 0.0}
    shape["relative_bias"] = RelativeBiasConfig(buckets=64, max_distance=512, bidirectional=False)
    sizes = (clusters, clusters + coarse * codes, books * codes)
    return tuple(
        CascadeLMConfig(
            name=name,
            tokens=tokens,
            number=plan.number,
            model=audiolm_stage(3 + sizes[plan.number], **shape),
            longest_s=plan.longest_s,
            train=TrainConfig(steps=plan.steps, evaluate_every=100),
            batches=PipelineConfig(batch=plan.batch),
            optimizer=WRITES.replace(learning_rate=plan.rate),
            start_from=plan.start_from,
        )
        for name, plan in plans.items()
    )


def published(corpus: CorpusConfig | None = None) -> AudioLMConfig:
    """The paper's sizes: 1,024 units, SoundStream with 12 books of 1,024, stretches of 30, 10 and 3 s in rows of 256.

    Units are of layer 7 of w2v-BERT 2.0; the paper trains each model for a million steps on 60,000 hours.
    """
    encoder = PartSource(path="frozen/encoder", source="hub:facebook/w2v-bert-2.0", expect=w2v_bert_2())
    units = FrameUnitsConfig(
        name="units",
        features=LayerOfPartConfig(part=encoder, layer=7),
        kmeans=KMeansConfig(clusters=1024, batch=10_000, starts=20),
        postprocess=PostprocessConfig(normalise="standardise"),
        fit_frames=5_000_000,
    )
    waves = DiscriminatorsConfig(periods=(), period_widths=())
    judges = JudgesConfig(parts=(STFTDiscriminatorsConfig(n_ffts=(1024,)), waves))
    codec = CodecStageConfig(
        name="codec",
        model=soundstream(),
        judges=judges,
        train=TrainConfig(steps=1_000_000),
        batches=PipelineConfig(batch=64),
        optimizer=OptimizerConfig(learning_rate=1e-4, schedule="constant", betas=(0.5, 0.9)),
    )
    models = tuple(
        CascadeLMConfig(
            name=name,
            tokens=CascadeTokensConfig(),
            number=number,
            model=audiolm_stage(size),
            longest_s=longest_s,
            train=TrainConfig(steps=1_000_000),
            batches=PipelineConfig(batch=256),
            optimizer=OptimizerConfig(learning_rate=5e-4, schedule="inverse_sqrt", warmup_steps=10_000),
        )
        for number, (name, size, longest_s) in enumerate(
            zip(PASSES, (1032, 5128, 12_296), (30.0, 10.0, 3.0), strict=True)
        )
    )
    stages = (units, codec, CodecTokensConfig(name="codes", source="stage:codec"), *models)
    return AudioLMConfig(name="audiolm_published", corpus=corpus or WorldConfig(hours=100.0), stages=stages)
