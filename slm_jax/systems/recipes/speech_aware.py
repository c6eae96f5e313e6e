"""What speech-aware text LMs share: how a run is loaded, asked and judged."""

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation
from slm_jax.core.trees import together
from slm_jax.data.corpus import CorpusConfig
from slm_jax.data.examples.described_tasks import askable
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.evaluation.section import JudgeConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.serving.speech_aware import AnswerDecoding, SpeechAwareSystem
from slm_jax.systems.recipes.held_out_questions import held_out_questions
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.parts import load_frozen
from slm_jax.training.post.speech_aware import SpeechAwareStageConfig
from slm_jax.training.stages import RunConfig, StageConfig, StageContext


class SpeechAwareConfig(RunConfig):
    """A run whose stage `answers` is the system."""

    answers: str = "answers"
    decoding: AnswerDecoding = AnswerDecoding()

    def load(self, context: StageContext) -> SpeechAwareSystem:
        """The trained system."""
        folder = context.finished(self.answers)
        model, layout, variables = self.answering.finished(folder)
        whole = together(variables, load_frozen(context.run, self.answers))
        units = self.answering.sequences(context)
        writer = self.answering.writer(context)
        return SpeechAwareSystem(model, whole, layout, self.corpus.rate_hz, self.decoding, units, writer)

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        """Held-out questions of the tasks, by task and number; clips are never cut."""
        stage = self.answering
        return held_out_questions(askable(stage.mixture), context, count, self.corpus.rate_hz, stage.clip_s)

    @property
    def answering(self) -> SpeechAwareStageConfig:
        """The stage that learns to answer."""
        stage = self.stage(self.answers)
        require(isinstance(stage, SpeechAwareStageConfig), "answers", self.answers, "is no stage that learns to answer")
        assert isinstance(stage, SpeechAwareStageConfig)  # for the type checker
        return stage


def speech_aware_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], **changes: object
) -> SpeechAwareConfig:
    """A run whose last stage is the system, judged by its own tasks on items of all kinds that these read."""
    last = stages[-1]
    require(isinstance(last, SpeechAwareStageConfig), "stages", last.name, "the last one learns to answer")
    assert isinstance(last, SpeechAwareStageConfig)  # for the type checker
    judges: tuple[JudgeConfig, ...] = (TasksJudge(tasks=askable(last.mixture), longest_s=last.clip_s), LossesJudge())
    tasks = [part.example for part in last.mixture.parts if isinstance(part.example, SpeechTaskConfig)]
    kinds = dict.fromkeys(kind for task in tasks for kind in task.reads or corpus.default_kinds() or ())
    made = SpeechAwareConfig(
        name=name,
        corpus=corpus,
        stages=stages,
        answers=last.name,
        judges=judges,
        keeps=KeptSpeechConfig(splits=("test",), kinds=tuple(kinds) or None),
    )
    return made.replace(**changes)
