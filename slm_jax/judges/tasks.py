"""Does a system do what it was trained for? Held-out items of its tasks, beside the same with other speech."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.messages import Conversation
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.evaluation.answers import score_answers
from slm_jax.evaluation.intervals import ratio_interval
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.evaluation.transcription import word_errors
from slm_jax.judges.answers import Question, with_other_speech
from slm_jax.judges.asking import Item, at_rate, items_of, replies_to, require_kinds_of_parts, text_of
from slm_jax.training.stages import StageContext

Counted = tuple[float, float]
SHOWN = 6
WORDS = (
    "Held-out items of the tasks that were trained on, asked as in training. wer: word errors against the answer; "
    "exact and f1: the whole answer; holds: the word that a right answer must hold. With 95 % intervals (bootstrap "
    "over items). Other speech: the same words with the clip of another item."
)


class Asked(NamedTuple):
    """A question of a task, and the word that a right answer holds where it is known."""

    question: Question
    key: str


def _errors(true: str, said: str, key: str, language: str) -> Counted:
    found = word_errors([true], [said], language)
    return float(found.substitutions + found.deletions + found.insertions), float(found.reference)


def _exact(true: str, said: str, key: str, language: str) -> Counted:
    return float(score_answers([true], [said], language=language).exact or 0.0), 1.0


def _f1(true: str, said: str, key: str, language: str) -> Counted:
    return float(score_answers([true], [said], language=language).f1 or 0.0), 1.0


def _holds(true: str, said: str, key: str, language: str) -> Counted:
    return (float(score_answers([key], [said], language=language).contains or 0.0), 1.0) if key else (0.0, 0.0)


METRICS: dict[str, Callable[[str, str, str, str], Counted]] = {
    "wer": _errors,
    "exact": _exact,
    "f1": _f1,
    "holds": _holds,
}
"""Name -> (sum, count) of one reply; a rate is the sum of sums over that of counts."""


class TasksJudge(JudgeConfig):
    """Asks `utterances` held-out items of every task. `tasks`: one, or a mixture whose parts have one each."""

    name: str = "tasks"
    tasks: MixtureConfig
    language: str = "en"

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, writes=("text",))
        figures: dict[str, Any] = {}
        shown: list[Sequence[str]] = []
        for part in self.tasks.parts:
            asked = self.asked(part, context, settings.utterances, system.rate_hz)
            figures[part.name], rows = self.scored(system, asked)
            shown += [(part.name, *row) for row in rows[:SHOWN]]
        tables = Table(HEADER, _rows(figures)), Table(("task", "answer", "said", "said, other speech"), shown)
        return Section("Tasks", WORDS, {self.name: figures}, tables)

    def asked(self, part: PartConfig, context: StageContext, count: int, rate_hz: int) -> list[Asked]:
        """Held-out questions of a task; raises `Lacking` without any."""
        task = part.example
        assert isinstance(task, SpeechTaskConfig)  # for the type checker
        own = context.corpus.rate_hz

        def said(item: Item) -> Conversation | None:
            return task.conversation(item, own, np.random.default_rng(0))

        items = items_of(context, task.kinds, count, lambda item: said(item) is not None)
        found = [(item, one) for item in items if (one := said(item)) is not None]
        if not found:
            raise Lacking(f"no held-out item can be used for {part.name!r}")
        return [
            Asked(Question(at_rate(one[:-1], rate_hz), one[-1].text, part.name), key_of(item)) for item, one in found
        ]

    def scored(self, system: Any, asked: Sequence[Asked]) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
        """Figures of the replies and of those to other speech; what was to be said, what was, what was then."""
        questions = [one.question for one in asked]
        controls = with_other_speech(questions)
        given, other = (
            [text_of(reply) for reply in replies_to(system, [one.asked for one in some])]
            for some in (questions, controls)
        )
        figures = self.figures(asked, given) | {"other_speech": self.figures(asked, other)}
        rows = zip([one.answer for one in questions], given, other, strict=True)
        return figures, list(rows)

    def figures(self, asked: Sequence[Asked], given: Sequence[str]) -> dict[str, Any]:
        """Rates and their intervals."""
        found: dict[str, Any] = {"questions": len(asked)}
        rows = list(zip(asked, given, strict=True))
        for name, metric in METRICS.items():
            pairs = [metric(one.question.answer, said, one.key, self.language) for one, said in rows]
            count = sum(pair[1] for pair in pairs)
            found[name] = sum(pair[0] for pair in pairs) / count if count else None
            found[f"{name}_interval"] = ratio_interval(pairs) if count else None
        return found


HEADER = ("task", "questions", *METRICS, *(f"{name}, other speech" for name in METRICS))


def key_of(item: Item) -> str:
    """The word that a right answer to an item holds; empty where nobody says."""
    answers = [turn.answer for turn in item["messages"] if turn.role == "assistant" and turn.answer]
    return answers[-1] if answers else ""


def _rows(figures: dict[str, Any]) -> list[list[Any]]:
    return [
        [name, row["questions"], *(_cell(one, metric) for one in (row, row["other_speech"]) for metric in METRICS)]
        for name, row in figures.items()
    ]


def _cell(row: dict[str, Any], metric: str) -> Any:
    interval = row[f"{metric}_interval"]
    return row[metric] if interval is None else f"{row[metric]:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"
