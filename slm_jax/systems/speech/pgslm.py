"""pGSLM, prosody-aware generative spoken language modelling (Kharitonov et al. 2021): units, durations and pitch.

    waveform -> units of GSLM with durations and log F0 -> a language model over three streams -> vocoder that reads F0

What differs from the paper. F0 is tracked by our own tracker instead of YAAPT; where a recording is silent or unvoiced
its class is one of its own (the paper has 32 classes of normalised log F0 for all). Real numbers lie on a fine grid
(`sequence_models.grid`). The vocoder hears F0 in Hz, so that a reply is in the pitch of its prompt.

Sizes: "published" (classes), "continuous" (real numbers, Laplace heads) and "tiny".
"""

from collections.abc import Callable

from slm_jax.assemblies.prosodic_tokenizer import ProsodyConfig
from slm_jax.core.errors import nearest, require
from slm_jax.data.corpus import CorpusConfig, WorldConfig
from slm_jax.data.pipeline import PipelineConfig
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.prosody import ProsodyJudge
from slm_jax.judges.units import UnitsJudge
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import pgslm, pgslm_continuous
from slm_jax.serving.prosodic_speech_lm import ProsodicSpeechLM
from slm_jax.serving.unit_speech_lm import Origin, UnitDecoding
from slm_jax.systems.card import KeptFigure, SystemCard
from slm_jax.systems.speech import gslm
from slm_jax.systems.speech.unit_speech import UnitSpeechConfig
from slm_jax.training.gradient_stage import trained
from slm_jax.training.loop import TrainConfig
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.pre.prosodic_lm import ProsodicLMConfig
from slm_jax.training.pre.prosody import ProsodyStageConfig
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import StageConfig, StageContext

REALS = ("duration", "log_f0")
CLASSES_T = (0.7, 0.25, 0.7)
REALS_T = (0.7, 0.125, 0.00125)
"""Temperatures of units, durations and pitch that the paper found best with prosody in the prompt."""
WORLD = "experiments/pgslm/figures.json"
CARD = SystemCard(
    name="pGSLM",
    paper="Kharitonov et al. 2021",
    sizes=("tiny", "published", "continuous"),
    reads=("speech",),
    writes=("speech",),
    plans=("pgslm_published_v5e", "pgslm_continuous_v5e"),
    figures=(
        KeptFigure(
            words="pitch of prompt and continuation, correlation",
            file=WORLD,
            place=("prosody", "pitch", "continuation", "correlation"),
        ),
        KeptFigure(words="of other prompts", file=WORLD, place=("prosody", "pitch", "other prompts", "correlation")),
        KeptFigure(words="nats per class of log F0", file=WORLD, place=("prosody", "nats", "log_f0", "model")),
        KeptFigure(words="unigram", file=WORLD, place=("prosody", "nats", "log_f0", "unigram")),
    ),
)


class PGSLMConfig(UnitSpeechConfig):
    """A run of pGSLM. `units_stage` names the stage that adds durations and pitch."""

    units_stage: str = "prosody"
    judges: tuple[JudgeConfig, ...] = (UnitsJudge(), ProsodyJudge(), PairsJudge(), LossesJudge())

    def load(self, context: StageContext) -> ProsodicSpeechLM:
        stage, done = ProsodyStageConfig.of(context.finished(self.units_stage)), context.finished(self.lm_stage)
        lm, vocoder = ProsodicLMConfig.of(done), UnitVocoderStageConfig.of(context.finished(self.spoken_by))
        return ProsodicSpeechLM(
            tokenizer=stage.tokenizer(context),
            rows=lm.rows(stage.spec(context)),
            lm=lm.model.make(),
            lm_params=trained(done)[1]["params"],
            vocoder=vocoder.vocoder(context).make(),
            vocoder_params=trained(context.finished(self.vocoder_stage))[1]["params"]["generator"],
            speakers=vocoder.speakers(context),
            decoding=UnitDecoding().drawing(self.sampling),
            prompt_s=self.prompt_s,
            origin=Origin(self.units_stage, self.lm_stage, self.spoken_by),
        )


def config(size: str = "tiny", **changes: object) -> PGSLMConfig:
    """A size of pGSLM with some fields changed; raises `UserError` for an unknown size."""
    sizes: dict[str, Callable[[], PGSLMConfig]] = {"tiny": tiny, "published": published, "continuous": continuous}
    require(size in sizes, "pGSLM size", size, f"must be one of {', '.join(sizes)}{nearest(size, sizes)}")
    return sizes[size]().replace(**changes)


def tiny(
    corpus: CorpusConfig = WorldConfig(hours=0.8, speakers=4, styles=("rate", "register")), clusters: int = 100
) -> PGSLMConfig:
    """Minutes on two cores: GSLM's tiny stages with four voices that speak fast and slowly, high and low."""
    base = gslm.tiny(corpus, clusters)
    small = {"layers": 4, "width": 192, "heads": 4, "hidden": 768, "embed_scale": 192**0.5}
    lm = ProsodicLMConfig(
        name="lm",
        tokens="prosody",
        model=pgslm(clusters, durations=21, classes=33, **small),
        length=160,
        train=TrainConfig(steps=400, evaluate_every=100),
        batches=PipelineConfig(batch=8),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=30, betas=(0.9, 0.98), weight_decay=0.01),
    )
    voice = base.stage("vocoder")
    assert isinstance(voice, UnitVocoderStageConfig)  # for the type checker
    changed: dict[str, tuple[StageConfig, ...]] = {
        "lm": (ProsodyStageConfig(name="prosody", units="units"), lm),
        "vocoder": (voice.replace(model=voice.model.replace(speakers=4)),),
    }
    stages = (one for stage in base.stages for one in changed.get(stage.name, (stage,)))
    sampling = SamplingConfig(temperatures=CLASSES_T, max_new=120)
    return PGSLMConfig(
        name="pgslm_tiny", corpus=corpus, stages=tuple(stages), prompt_s=base.prompt_s, sampling=sampling
    )


def published(corpus: CorpusConfig | None = None) -> PGSLMConfig:
    """The paper's sizes with classes of durations and pitch: 100 units, 12 layers of 1,024."""
    return _published("pgslm_published", corpus, pgslm(100, 21, 33), ProsodyConfig(), CLASSES_T)


def continuous(corpus: CorpusConfig | None = None) -> PGSLMConfig:
    """The same with durations and log F0 as real numbers."""
    prosody = ProsodyConfig(continuous=REALS)
    return _published("pgslm_continuous", corpus, pgslm_continuous(100), prosody, REALS_T)


def _published(
    name: str,
    corpus: CorpusConfig | None,
    model: MultiStreamConfig,
    prosody: ProsodyConfig,
    temperatures: tuple[float, ...],
) -> PGSLMConfig:
    """GSLM's published stages with such a language model: rows of 1,024 runs, about 98,000 of them in a step.

    The paper trains for 70 epochs of 6,000 hours, some 400,000 steps of that size.
    """
    base = gslm.published(corpus, clusters=100)
    lm = ProsodicLMConfig(
        name="lm",
        tokens="prosody",
        model=model,
        length=1024,
        weights=(1.0, 0.5, 0.5),
        train=TrainConfig(steps=400_000),
        batches=PipelineConfig(batch=96),
        optimizer=OptimizerConfig(learning_rate=5e-4, schedule="inverse_sqrt", warmup_steps=4000, betas=(0.9, 0.98)),
    )
    prosodic = (ProsodyStageConfig(name="prosody", units="units", prosody=prosody), lm)
    stages = (one for stage in base.stages for one in (prosodic if stage.name == "lm" else (stage,)))
    sampling = SamplingConfig(temperatures=temperatures, max_new=500)
    return PGSLMConfig(name=name, corpus=base.corpus, stages=tuple(stages), sampling=sampling)
