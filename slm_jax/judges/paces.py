"""What a system writes while it still reads: its tasks at several paces, beside other speech, and how far it lags."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_jax.core.contracts import Reply
from slm_jax.evaluation.intervals import bootstrap_interval
from slm_jax.evaluation.lagging import average_lagging
from slm_jax.evaluation.section import JudgeSettings, Lacking, Section, Table
from slm_jax.judges.asking import replies_to, require_kinds_of_parts, text_of
from slm_jax.judges.tasks import Asked, TasksJudge, cell, other_clip, with_other_speech
from slm_jax.nn.pacing import PaceConfig
from slm_jax.text.templates import clips_of
from slm_jax.training.stages import StageContext

WORDS = (
    "Held-out items of the tasks, written while they are heard. wait: chunks read before the first id, ids: written "
    "for each chunk after that. lag: length-adaptive average lagging, seconds of speech behind an even pace (reading "
    "all first: as long as the clip). first: seconds read when the first id is written. With 95 % intervals "
    "(bootstrap over items). Other speech: the same words with the clips of another item."
)


class PacesJudge(TasksJudge):
    """`TasksJudge` at each of `paces`; raises `Lacking` for a system that reads whole clips only."""

    name: str = "paces"
    paces: tuple[PaceConfig, ...]

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, writes=("text",))
        if not hasattr(system.decoding, "pace") or system.model.config.listener is None:
            raise Lacking("the system does not write while it reads")
        figures: dict[str, Any] = {}
        for part in self.tasks.parts:
            asked = self.asked(part, context, settings.utterances, system.rate_hz)
            own = {named(pace): self.at_pace(system, asked, pace) for pace in self.paces}
            figures[part.name] = own
        return Section("Paces", WORDS, {self.name: figures}, (_table(figures),))

    def at_pace(self, system: Any, asked: Sequence[Asked], pace: PaceConfig) -> dict[str, Any]:
        """Figures at one pace: scores, scores with other speech, how far behind the words are."""
        paced = dataclasses.replace(system, decoding=system.decoding.replace(pace=pace))
        questions = [one.question for one in asked]
        controls = with_other_speech(questions)
        moved = [place for place, pair in enumerate(zip(questions, controls, strict=True)) if other_clip(*pair)]
        replies = replies_to(paced, [one.asked for one in questions])
        others = replies_to(paced, [controls[place].asked for place in moved]) if moved else []
        control = self.figures([asked[place] for place in moved], list(map(text_of, others)))
        return self.figures(asked, list(map(text_of, replies))) | lags(asked, replies) | {"other_speech": control}


def lags(asked: Sequence[Asked], replies: Sequence[Reply]) -> dict[str, Any]:
    """Mean lag and mean seconds read before the first id, over replies that say anything, with their intervals."""
    pairs = [(one, reply.trace["read_s"]) for one, reply in zip(asked, replies, strict=True)]
    found = [(average_lagging(read, seconds_of(one)), float(read[0])) for one, read in pairs if len(read)]
    columns = [list(column) for column in zip(*found, strict=True)] or [[], []]
    made: dict[str, Any] = {}
    for name, values in zip(("lag_s", "first_s"), columns, strict=True):
        made[name] = float(np.mean(values)) if values else None
        made[f"{name}_interval"] = bootstrap_interval(values)
    return made


def seconds_of(asked: Asked) -> float:
    """How long the clips of a question are."""
    return sum(clip.seconds for clip in clips_of(asked.question.asked))


def named(pace: PaceConfig) -> str:
    """`wait 2, ids 3 of 8 frames`."""
    return f"wait {pace.wait}, ids {pace.tokens} of {pace.chunk} frames"


def _table(figures: dict[str, Any]) -> Table:
    header = ("task", "pace", "questions", "wer", "lag_s", "first_s", "wer, other speech")
    rows = [
        [
            *(task, pace, row["questions"]),
            *(cell(row, name) for name in ("wer", "lag_s", "first_s")),
            cell(row["other_speech"], "wer"),
        ]
        for task, own in figures.items()
        for pace, row in own.items()
    ]
    return Table(header, rows)
