"""Judge the system in a run folder; writes figures, sounds, plots and report.html there."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from slm_jax.cli.console import say, table
from slm_jax.cli.options import parse_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Judge a run: units against phones, the language model against n-grams, resynthesis, continuations."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    data_dir: Path = Path("data")
    """Where the corpus is prepared anew for a run folder of an older version, which keeps no speech of its own."""
    utterances: int = 24
    """Held-out utterances to resynthesise and to continue."""
    seeds: int = 1
    """Seeds of k-means in the comparison of features."""
    thorough: bool = False
    """Compare features under all treatments, clustered to the end."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Judge the run; print and return the figures."""
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import judging_context, read_run_config
    from slm_jax.workbench.speech_lm import JudgeSettings
    from slm_jax.workbench.speech_lm_report import Evaluation

    options = parse_options(EvaluateOptions, argv, "evaluate")
    run = RunFolder(options.run)
    config = read_run_config(run)
    context = judging_context(config, run, options.data_dir, say)
    settings = JudgeSettings(utterances=options.utterances, seeds=options.seeds, thorough=options.thorough)
    evaluation = Evaluation(config, context, settings, say)
    figures = evaluation.run()
    print(summary(figures))
    print(f"report: {evaluation.report(f'python -m slm_jax evaluate {options.run}')}")
    return figures


def summary(figures: dict[str, Any]) -> str:
    """The figures as tables for people."""
    parts = [table([list(figures["language_model"].values())], list(figures["language_model"]))]
    for key in ("resynthesis", "continuations"):
        columns = list(next(iter(figures[key].values())))
        rows = [[name, *(values[column] for column in columns)] for name, values in figures[key].items()]
        parts.append(table(rows, [key, *columns]))
    if figures["units"]:
        keys = ("feature", "normalise", "smooth", "clusters", "phone_purity", "cluster_purity", "pnmi")
        parts.insert(0, table([[row[key] for key in keys] for row in figures["units"]], keys))
    return "\n\n".join(parts)
