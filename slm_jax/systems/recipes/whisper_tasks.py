"""What systems on a Whisper with tasks share: how a run is loaded, asked and judged."""

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation
from slm_jax.data.corpus import CorpusConfig
from slm_jax.judges.losses import LossesJudge
from slm_jax.judges.tasks import TasksJudge
from slm_jax.serving.task_whisper import TaskDecoding, TaskWhisper
from slm_jax.systems.recipes.held_out_questions import held_out_questions
from slm_jax.training.kept import KeptSpeechConfig
from slm_jax.training.post.whisper_tuning import WhisperTuningStageConfig
from slm_jax.training.stages import RunConfig, StageConfig, StageContext


class WhisperTasksConfig(RunConfig):
    """A run whose stage `answers` is the system."""

    answers: str = "instructions"
    decoding: TaskDecoding = TaskDecoding()

    def load(self, context: StageContext) -> TaskWhisper:
        """The trained system."""
        config, params, prompts = self.answering.finished(context.finished(self.answers))
        return TaskWhisper(config, params, prompts, self.decoding)

    def prompts(self, context: StageContext, count: int, seconds: float | int | None = None) -> dict[str, Conversation]:
        """Held-out items as the tasks ask of them; clips are never cut."""
        return held_out_questions(self.answering.mixture, context, count, self.corpus.rate_hz)

    @property
    def answering(self) -> WhisperTuningStageConfig:
        """The stage that learns to answer."""
        stage = self.stage(self.answers)
        require(isinstance(stage, WhisperTuningStageConfig), "answers", self.answers, "is no stage that tunes Whisper")
        assert isinstance(stage, WhisperTuningStageConfig)  # for the type checker
        return stage


def whisper_tasks_run(
    name: str, corpus: CorpusConfig, stages: tuple[StageConfig, ...], **changes: object
) -> WhisperTasksConfig:
    """A run whose last stage is the system, judged by its own tasks."""
    last = stages[-1]
    require(isinstance(last, WhisperTuningStageConfig), "stages", last.name, "the last one tunes Whisper")
    assert isinstance(last, WhisperTuningStageConfig)  # for the type checker
    made = WhisperTasksConfig(
        name=name,
        corpus=corpus,
        stages=stages,
        answers=last.name,
        judges=(TasksJudge(tasks=last.mixture), LossesJudge()),
        keeps=KeptSpeechConfig(splits=("test",)),
    )
    return made.replace(**changes)
