"""Replies to questions about held-out speech, beside replies to the same questions about other speech."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

from slm_jax.audio.plots import plot_intervals
from slm_jax.core.messages import Conversation, Message, Part, Speech, Turn, conversation
from slm_jax.data.corpora.world_instructions import TASKS
from slm_jax.data.passes import float_samples
from slm_jax.evaluation.answers import AnswerScores, one_of, score_answers
from slm_jax.evaluation.intervals import bootstrap_interval
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Plot, Section, Table
from slm_jax.judges.asking import Item, at_rate, items_of, kinds_there, replies_to, require_kinds_of_parts, text_of
from slm_jax.training.stages import StageContext

SCORES = ("exact", "f1", "contains")
HEADER = ("", "questions", *SCORES, "unparsed", *(f"{name}, other speech" for name in (*SCORES, "unparsed")))
ALL = "all"
WORDS = (
    "Means with 95 % intervals (bootstrap over items). Other speech: the same written words with the speech of "
    "another item, which is what a system gets that guesses. Unparsed: nothing was said, or not one of the labels to "
    "choose from; it counts as wrong."
)


class Question(NamedTuple):
    """What is said before an answer, and the answer; `group`: the task of the item, or its kind."""

    asked: Conversation
    answer: str
    group: str


class AnswersJudge(JudgeConfig):
    """Does the system answer what it is asked?

    Asked is the last question of an item: a turn of the assistant that states its `answer`, with all that was said
    before it. `utterances` of the settings are asked of every kind of item. `kinds` None: all that are there.
    """

    name: str = "answers"
    kinds: tuple[str, ...] | None = None
    language: str = "en"

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("speech",), writes=("text",))
        every = self.questions(system.rate_hz, context, settings.utterances)
        questions = [one for one in every if _kinds(one.asked) <= system.reads]
        if not questions:
            raise Lacking(f"the system cannot read any of the {len(every)} held-out questions")
        shuffled = with_other_speech(questions)
        given, control = (
            [text_of(reply) for reply in replies_to(system, [one.asked for one in some])]
            for some in (questions, shuffled)
        )
        figures = answer_figures(questions, given, control, self.language)
        unread = len(every) - len(questions)
        words = f"{WORDS} {unread} questions are in a form that the system does not read." if unread else WORDS
        table = Table(HEADER, [_row(name, row) for name, row in figures.items()])
        return Section("Answers", words, {self.name: figures}, (table,), plots=(self.plot(figures),))

    def questions(self, rate_hz: int, context: StageContext, count: int) -> list[Question]:
        """Held-out questions, up to `count` of each kind; raises `Lacking` without any."""
        one_by_one: list[tuple[str, ...] | None] = [(kind,) for kind in self.kinds or kinds_there(context)]
        found = [
            question_of(item, context.corpus.rate_hz, rate_hz)
            for kind in one_by_one or (None,)
            for item in items_of(context, kind, count, lambda item: answered(item["messages"]) is not None)
        ]
        if not found:
            raise Lacking("no held-out item has a question whose answer is known")
        return found

    def plot(self, figures: dict[str, Any]) -> Plot:
        """Which share of the replies holds the answer, by group."""
        rows = {
            name: {"the item's speech": _point(row), "other speech": _point(row["other_speech"])}
            for name, row in figures.items()
        }
        title = "Replies that hold the answer"
        draw = partial(plot_intervals, rows=rows, xlabel="share of the questions", title=title)
        return Plot(self.name, draw, f"{title}, with 95 % intervals")


def answered(turns: Sequence[Turn]) -> int | None:
    """The place of the last turn in which the assistant gives the user a known answer; None without one."""
    users = [i for i, turn in enumerate(turns) if turn.role == "user"]
    places = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.answer and users and i > users[0]]
    return places[-1] if places else None


def question_of(item: Item, stored_hz: int, rate_hz: int) -> Question:
    """The last question of an item (see `answered`), clips at `rate_hz` (Hz); a manifest's `task` counts too.

    It ends with a turn of the user: a word that the assistant puts in while the user asks is no beginning of a reply.
    """
    turns = item["messages"]
    place = answered(turns)
    assert place is not None
    end = max(i for i, turn in enumerate(turns[:place]) if turn.role == "user") + 1
    asked = at_rate(conversation(turns[:end], float_samples(item["samples"]), stored_hz), rate_hz)
    extra = item.get("extra") or {}
    task = item.get("task") or (extra.get("task") if isinstance(extra, dict) else "")
    return Question(asked, turns[place].answer, str(task or item["kind"]))


def with_other_speech(questions: Sequence[Question]) -> list[Question]:
    """Every question with the clips of the next one of its group; one that has no neighbour stays as it is."""
    found = list(questions)
    for group in {one.group for one in questions}:
        places = [i for i, one in enumerate(questions) if one.group == group]
        for place, other in zip(places, [*places[1:], *places[:1]], strict=True):
            found[place] = questions[place]._replace(asked=_speaking(questions[place].asked, questions[other].asked))
    return found


def answer_figures(
    questions: Sequence[Question], given: Sequence[str], control: Sequence[str], language: str = "en"
) -> dict[str, Any]:
    """Scores over all questions and by group; those of `control`, replies to other speech, under `other_speech`.

    A question that is alone in its group was not asked about other speech, and is left out of the control.
    """
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(questions):
        groups.setdefault(one.group, []).append(place)
    paired = {place for places in groups.values() if len(places) > 1 for place in places}
    scores, others = (
        [_scored(one, text, language) for one, text in zip(questions, texts, strict=True)] for texts in (given, control)
    )
    rows = {ALL: list(range(len(questions))), **(groups if len(groups) > 1 else {})}
    return {
        name: {
            **summary([scores[i] for i in places]),
            "other_speech": summary([others[i] for i in places if i in paired]),
        }
        for name, places in rows.items()
    }


def summary(scores: Sequence[AnswerScores]) -> dict[str, Any]:
    """Means over questions, their intervals, and how many were asked and could not be parsed."""
    found: dict[str, Any] = {"questions": len(scores), "unparsed": sum(one.unparsed for one in scores)}
    for name in SCORES:
        values = [getattr(one, name) for one in scores]
        found[name] = sum(values) / len(values) if values else None
        found[f"{name}_interval"] = bootstrap_interval(values)
    return found


def _scored(one: Question, text: str, language: str) -> AnswerScores:
    """The scores of one reply; of a task of the world with labels, the label that the reply names is the answer."""
    labels = TASKS[one.group].labels if one.group in TASKS else ()
    parse: dict[str, Callable] = {"parse": one_of(labels, language)} if one.answer in labels else {}
    return score_answers([one.answer], [text], language=language, **parse)


def _speaking(asked: Conversation, other: Conversation) -> Conversation:
    """`asked` with the clips of `other`, in turn."""
    clips = cycle([clip for message in other for clip in message.speech] or [None])

    def part_of(part: Part) -> Part:
        return (next(clips) or part) if isinstance(part, Speech) else part

    return tuple(Message(message.role, tuple(part_of(part) for part in message.parts)) for message in asked)


def _kinds(one: Conversation) -> frozenset[str]:
    return frozenset[str]().union(*(message.kinds for message in one))


def _point(row: dict[str, Any]) -> tuple[float | None, tuple[float, float] | None]:
    return row["contains"], row["contains_interval"]


def _row(name: str, row: dict[str, Any]) -> list[Any]:
    other = row["other_speech"]
    cells = [[*(_cell(one, score) for score in SCORES), one["unparsed"]] for one in (row, other)]
    return [name, row["questions"], *cells[0], *cells[1]]


def _cell(row: dict[str, Any], score: str) -> str | float | None:
    """A mean with its interval, as people read it."""
    interval = row[f"{score}_interval"]
    return row[score] if interval is None else f"{row[score]:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"
