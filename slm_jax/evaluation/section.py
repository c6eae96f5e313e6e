"""How a whole system is judged: every judge gives one section of the report, with figures for machines beside it.

    class AnswersJudge(JudgeConfig):
        name: str = "answers"

        def judge(self, system, context, settings) -> Section: ...

The judges themselves stand in `slm_jax.judges`; a run names its own in `RunConfig.judges`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require


class Lacking(UserError):
    """What a judge needs is not in the run or its corpus; its section says so in this one sentence."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under `header`; an empty first heading means that the rows have names. `title`: above it."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Sound:
    """A clip that the report plays, kept as `name`.wav in the run folder; `caption`: what is heard."""

    name: str
    samples: Float[np.ndarray, "N"]
    rate_hz: int
    caption: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture, kept as plots/`name`.png in the run folder; `draw(path)` writes it there."""

    name: str
    draw: Callable[[Path], Any]
    caption: str


@dataclasses.dataclass(frozen=True)
class Section:
    """What one judge found.

    `figures`: plain JSON by name, which `figures.json` holds beside those of the other judges. `words`: a paragraph for
    people, that is what the figures mean, or what was left out and why.
    """

    title: str
    words: str = ""
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    tables: Sequence[Table] = ()
    sounds: Sequence[Sound] = ()
    plots: Sequence[Plot] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """How much is looked at.

    `utterances`: held-out ones to resynthesise, continue, transcribe or ask. `seeds`: of k-means in the comparison of
    features. `thorough`: compare under all treatments, clustering `fit_frames` frames to the end; without it under the
    run's own and two more, with fewer frames and passes. `scored_utterances` and `phone_utterances`: how many the
    comparison of features is scored on and the phone classifier is trained on. `pairs`: folders of
    archives of pairs of clips, none for those that the judge itself names.
    """

    utterances: int = 24
    seeds: int = 1
    thorough: bool = False
    fit_frames: int = 60_000
    scored_utterances: int = 400
    phone_utterances: int = 300
    pairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("utterances", "seeds"):
            require(getattr(self, field) >= 1, field, getattr(self, field), "at least 1")


class JudgeConfig(Config):
    """One judge. `name` is what `evaluate --judges` calls it; each class has its own default."""

    name: str

    def judge(self, system: Any, context: Any, settings: JudgeSettings) -> Section:
        """What is found out about `system`, a `core.contracts.System`.

        `context`, a `training.stages.StageContext`, gives the held-out speech and the stages of the run. Raises
        `Lacking` when they do not hold what is needed: the caller makes `left_out` of it.
        """
        raise TypeError(f"{type(self).__name__} does not say how it judges")

    def left_out(self, reason: str) -> Section:
        """The section of a judge that had nothing to judge by."""
        title = self.name.replace("_", " ").capitalize()
        return Section(title, f"Left out: {reason}.", {f"{self.name}_left_out": reason})


def rows_of(figures: dict[str, dict[str, Any]], title: str = "") -> Table:
    """A table of named rows: name -> column -> value; the columns of all rows, in the order in which they come."""
    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    rows = [[name, *(row.get(column) for column in columns)] for name, row in figures.items()]
    return Table(["", *(column.replace("_", " ") for column in columns)], rows, title)
