"""Make a small spoken language model from nothing, in minutes: corpus, units, model, voice, report."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from slm_jax.cli import evaluate, train
from slm_jax.cli.console import say
from slm_jax.cli.options import parse_options, split_arguments

UTTERANCES = 16
"""Held-out sentences that are judged: fewer than `evaluate` takes, for the sake of time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The tiny GSLM from start to end; run again, it goes on where it stopped or says that all is done.

    Any field of the config can be overridden: --lm.train.steps 500."""

    workdir: Path = Path("runs/demo")
    """The run folder."""
    data_dir: Path = Path("data")
    """Where prepared corpora are kept."""
    config: Path | None = None
    """Another recipe than the tiny GSLM: a Python file that defines `config`, or a system by name and size."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Train, judge and report; returns stages, figures and the report's path."""
    own, overrides = split_arguments(DemoOptions, argv)
    options = parse_options(DemoOptions, own, "demo")
    start = time.perf_counter()
    recipe = options.config or "gslm:tiny"
    places = ["--data-dir", str(options.data_dir)]
    trained = train.main([str(recipe), "--workdir", str(options.workdir), *places, *overrides])
    report = options.workdir / "report.html"
    fresh = any(stage["seconds"] is not None for stage in trained["stages"])
    if report.is_file() and not fresh:
        say(f"all is done: open {report}")
        return {**trained, "report": str(report)}
    figures = evaluate.main([str(options.workdir), *places, "--utterances", str(UTTERANCES)])
    seconds = time.perf_counter() - start
    say(f"done in {seconds / 60:.1f} minutes: open {report}")
    return {**trained, "figures": figures, "seconds": seconds, "report": str(report)}
