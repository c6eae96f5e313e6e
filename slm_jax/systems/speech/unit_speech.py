"""What the systems over one stream of units share (GSLM, TWIST): how a run is loaded and judged."""

from slm_jax.core.messages import Conversation
from slm_jax.data.records import RecordSource
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.judges.continuations import ContinuationsJudge
from slm_jax.judges.language_model import LanguageModelJudge
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.pairs import PairsJudge
from slm_jax.judges.resynthesis import ResynthesisJudge
from slm_jax.judges.units import UnitsJudge
from slm_jax.serving.unit_speech_lm import Origin, UnitDecoding, UnitSpeechLM
from slm_jax.serving.unit_voice import UnitVoice
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.durations import DurationStageConfig
from slm_jax.training.pre.unit_lm import UnitLMConfig, sequence_column, unit_vocabulary
from slm_jax.training.pre.unit_vocoder import UnitVocoderStageConfig
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.token_stage import token_stage

UNIT_SPEECH_JUDGES = (
    UnitsJudge(),
    LanguageModelJudge(),
    ResynthesisJudge(),
    ContinuationsJudge(),
    PairsJudge(),
    LossesJudge(),
)


class UnitSpeechConfig(RunConfig):
    """The stages of a run that make up the system, by name, and how it speaks and is judged by default.

    `vocoder_stage`: durations, or the vocoder itself, whose units then all last equally long. `prompt_s`: seconds of
    speech that are continued.
    """

    units_stage: str = "units"
    lm_stage: str = "lm"
    vocoder_stage: str = "durations"
    prompt_s: float = 3.0
    sampling: SamplingConfig = SamplingConfig(temperature=0.7, max_new=500)
    judges: tuple[JudgeConfig, ...] = UNIT_SPEECH_JUDGES

    @property
    def spoken_by(self) -> str:
        """The stage that trained the generator."""
        stage = self.stage(self.vocoder_stage)
        return stage.vocoder if isinstance(stage, DurationStageConfig) else stage.name

    def load(self, context: StageContext) -> UnitVoice:
        """The trained system."""
        units, lm = token_stage(context, self.units_stage), UnitLMConfig.of(context.finished(self.lm_stage))
        vocoder = UnitVocoderStageConfig.of(context.finished(self.spoken_by))
        spoken = context.finished(self.vocoder_stage)
        known = self.spoken_by != self.vocoder_stage
        return UnitSpeechLM(
            tokenizer=units.tokenizer(context),
            vocabulary=unit_vocabulary(units.spec(context).units),
            lm=lm.decoder(context.finished(self.lm_stage)).make(),
            lm_params=trained(context.finished(self.lm_stage))[1]["params"],
            vocoder=vocoder.vocoder(context).make(),
            vocoder_params=trained(spoken)[1]["params"]["generator"],
            speakers=vocoder.speakers(context),
            decoding=UnitDecoding().drawing(self.sampling),
            prompt_s=self.prompt_s,
            frames_per_unit=None if known else frames_per_unit(context, self.units_stage),
            origin=Origin(self.units_stage, self.lm_stage, self.spoken_by),
        )

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        return super().prompts(context, count, self.prompt_s if seconds is None else seconds)


def frames_per_unit(context: StageContext, units: str) -> float:
    """How many frames a unit of stage `units` lasts in the mean of what was trained on."""
    stage = token_stage(context, units)
    source, spec = RecordSource(stage.records(context.finished(units), "train")), stage.spec(context)
    return float(source.lengths(spec.columns[0]).sum() / source.lengths(sequence_column(spec)).sum())
