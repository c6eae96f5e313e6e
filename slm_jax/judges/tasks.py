"""Does a system do what it was trained for? Held-out items of its tasks, beside the same with other speech."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.messages import Conversation
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.mixture import MixtureConfig, PartConfig
from slm_jax.evaluation.answers import score_answers
from slm_jax.evaluation.intervals import Interval, ratio_interval
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.evaluation.transcription import word_errors
from slm_jax.evaluation.translation import TranslationScore, bleu, chrf
from slm_jax.judges.answers import Question, with_other_speech
from slm_jax.judges.asking import Item, at_rate, items_of, replies_to, require_kinds_of_parts, text_of
from slm_jax.text.templates import clips_of
from slm_jax.training.stages import StageContext

Counted = tuple[float, float]
SHOWN = 6
WORDS = (
    "Held-out items of the tasks that were trained on, asked as in training. wer: word errors against the answer; "
    "exact and f1: the whole answer; holds: the word that a right answer must hold; bleu and chrf: of translations, "
    "from 0 to 100. With 95 % intervals (bootstrap over items). Other speech: the same words with the clips of another "
    "item of the task."
)


class Asked(NamedTuple):
    """A question of a task, and the word that a right answer holds where it is known."""

    question: Question
    key: str


class Answered(NamedTuple):
    """What was to be said, what was said, and the word that a right answer holds."""

    true: str
    said: str
    key: str


Score = tuple[float | None, Interval | None]


class TasksJudge(JudgeConfig):
    """Asks `utterances` held-out items of every task. `tasks`: one part for each.

    `longest_s`: items with a longer clip are left out, as in training. `translations`: names of parts whose answers are
    translations, with the language that they are in: they get BLEU and chrF, the others `METRICS`.
    """

    name: str = "tasks"
    tasks: MixtureConfig
    language: str = "en"
    longest_s: float | None = None
    translations: tuple[tuple[str, str], ...] = ()

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, writes=("text",))
        figures: dict[str, Any] = {}
        shown: list[Sequence[str]] = []
        for part in self.tasks.parts:
            asked = self.asked(part, context, settings.utterances, system.rate_hz)
            figures[part.name], rows = self.scored(system, asked)
            shown += [(part.name, *row) for row in rows[:SHOWN]]
        tables = _table(figures), Table(("task", "answer", "said", "said, other speech"), shown)
        return Section("Tasks", WORDS, {self.name: figures}, tables)

    def asked(self, part: PartConfig, context: StageContext, count: int, rate_hz: int) -> list[Asked]:
        """Held-out questions of a task; raises `Lacking` without any."""
        task, own = part.example, context.corpus.rate_hz
        assert isinstance(task, SpeechTaskConfig)  # for the type checker

        def said(item: Item) -> Conversation | None:
            return task.conversation(item, own, np.random.default_rng(0))

        def fits(item: Item) -> bool:
            here = part.corpus is None or item.get("corpus") == part.corpus
            one = said(item) if here else None
            limit = np.inf if self.longest_s is None else self.longest_s
            return one is not None and all(clip.seconds <= limit for clip in clips_of(one))

        items = items_of(context, task.reads, count, fits)
        if not items:
            raise Lacking(f"no held-out item can be used for {part.name!r}")
        pairs = [(item, one) for item in items if (one := said(item)) is not None]
        return [
            Asked(Question(at_rate(one[:-1], rate_hz), one[-1].text, part.name), task.key(item)) for item, one in pairs
        ]

    def scored(self, system: Any, asked: Sequence[Asked]) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
        """Figures of the replies and of those to other speech; what was to be said, what was, what was then.

        A question that has no clip, or no neighbour with one, is not asked about other speech.
        """
        questions = [one.question for one in asked]
        controls = with_other_speech(questions)
        moved = [place for place, pair in enumerate(zip(questions, controls, strict=True)) if other_clip(*pair)]
        given = [text_of(reply) for reply in replies_to(system, [one.asked for one in questions])]
        replies = replies_to(system, [controls[place].asked for place in moved]) if moved else []
        other = dict(zip(moved, map(text_of, replies), strict=True))
        control = self.figures([asked[place] for place in moved], list(other.values()))
        rows = [(one.answer, given[place], other.get(place, "")) for place, one in enumerate(questions)]
        return self.figures(asked, given) | {"other_speech": control}, rows

    def figures(self, asked: Sequence[Asked], given: Sequence[str]) -> dict[str, Any]:
        """Scores and their intervals."""
        found: dict[str, Any] = {"questions": len(asked)}
        rows = [Answered(one.question.answer, said, one.key) for one, said in zip(asked, given, strict=True)]
        language = dict(self.translations).get(asked[0].question.group) if asked else None
        if language is not None:
            return found | _translation_figures(rows, language)
        for name, metric in METRICS.items():
            found[name], found[f"{name}_interval"] = _rate([metric(row, self.language) for row in rows])
        return found


def other_clip(asked: Question, control: Question) -> bool:
    """Is another clip heard in `control`?"""
    pairs = zip(clips_of(asked.asked), clips_of(control.asked), strict=True)
    return any(mine is not theirs for mine, theirs in pairs)


def _rate(pairs: Sequence[Counted]) -> Score:
    count = sum(pair[1] for pair in pairs)
    return (sum(pair[0] for pair in pairs) / count, ratio_interval(pairs)) if count else (None, None)


def _errors(row: Answered, language: str) -> Counted:
    found = word_errors([row.true], [row.said], language)
    return float(found.substitutions + found.deletions + found.insertions), float(found.reference)


def _exact(row: Answered, language: str) -> Counted:
    return float(score_answers([row.true], [row.said], language=language).exact or 0.0), 1.0


def _f1(row: Answered, language: str) -> Counted:
    return float(score_answers([row.true], [row.said], language=language).f1 or 0.0), 1.0


def _holds(row: Answered, language: str) -> Counted:
    if not row.key:
        return 0.0, 0.0
    return float(score_answers([row.key], [row.said], language=language).contains or 0.0), 1.0


METRICS: dict[str, Callable[[Answered, str], Counted]] = {
    "wer": _errors,
    "exact": _exact,
    "f1": _f1,
    "holds": _holds,
}
"""Name -> (sum, count) of one reply; a rate is the sum of sums over that of counts."""


def _translation_figures(rows: Sequence[Answered], language: str) -> dict[str, Any]:
    sides = [row.true for row in rows], [row.said for row in rows]
    found: dict[str, TranslationScore] = {"bleu": bleu(*sides, language), "chrf": chrf(*sides)}
    return {
        key: value
        for name, score in found.items()
        for key, value in (
            (name, score.value),
            (f"{name}_interval", score.interval),
            (f"{name}_signature", score.signature),
        )
    }


def _table(figures: dict[str, Any]) -> Table:
    known = dict.fromkeys(name for row in figures.values() for name in row if f"{name}_interval" in row)
    header = ("task", "questions", *known, *(f"{name}, other speech" for name in known))
    rows = [
        [name, row["questions"], *(cell(one, metric) for one in (row, row["other_speech"]) for metric in known)]
        for name, row in figures.items()
    ]
    return Table(header, rows)


def cell(row: dict[str, Any], metric: str) -> Any:
    """A figure of a row with its interval, as a table shows it."""
    value, interval = row.get(metric), row.get(f"{metric}_interval")
    return value if interval is None else f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"
