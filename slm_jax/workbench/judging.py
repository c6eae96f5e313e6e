"""Judging a run: its judges in turn, their figures in `figures.json` of the run folder."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_jax.core.errors import UserError, nearest
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section
from slm_jax.training.stages import RunConfig, StageContext

FIGURES = "figures.json"


def chosen(config: RunConfig, names: Sequence[str]) -> tuple[JudgeConfig, ...]:
    """The judges of a run that are called so, all of its own without names; raises `UserError` for an unknown name.

    By name the usual ones of its kind of run are there too: a run that is older than a judge keeps its own list.
    """
    if not names:
        return config.judges
    usual: Any = next(field.default for field in dataclasses.fields(config) if field.name == "judges")
    known = {judge.name: judge for judge in (*usual, *config.judges)}
    for name in names:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"judge {name!r} is not in this run{nearest(name, known)}; {has}")
    return tuple(judge for name, judge in known.items() if name in names)


def sections_of(
    judges: Sequence[JudgeConfig], system: Any, context: StageContext, settings: JudgeSettings
) -> list[Section]:
    """One section per judge; of a judge that lacks something, the sentence that says what was left out."""
    found = []
    for judge in judges:
        context.say(f"judging {judge.name.replace('_', ' ')}")
        try:
            found.append(judge.judge(system, context, settings))
        except Lacking as lacking:
            found.append(judge.left_out(str(lacking)))
    return found


def keep_figures(folder: Path, sections: Sequence[Section], before: bool) -> dict[str, Any]:
    """The figures of all sections, written to `figures.json`; with `before` beside what it held of other judges."""
    figures = {name: value for section in sections for name, value in section.figures.items()}
    path, partial = folder / FIGURES, folder / f"{FIGURES}.partial"
    others = json.loads(path.read_text(encoding="utf-8")) if before and path.is_file() else {}
    partial.write_text(json.dumps({**others, **figures}, indent=1), encoding="utf-8")
    os.replace(partial, path)
    return figures
