"""Judge the system in a run folder; writes figures, sounds, plots and report.html there."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slm_jax.cli.console import say, table
from slm_jax.cli.options import parse_options

if TYPE_CHECKING:
    from slm_jax.evaluation.section import Section


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Judge a run: each of its judges adds a section to the report and figures to figures.json."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    data_dir: Path = Path("data")
    """Where the corpus is prepared anew for a run folder of an older version, which keeps no speech of its own."""
    judges: tuple[str, ...] = ()
    """Names of the judges to ask, by default all of the run; figures of the others stay, the report is of these."""
    utterances: int = 24
    """Held-out utterances to resynthesise, to continue or to answer."""
    seeds: int = 1
    """Seeds of k-means where features are compared."""
    thorough: bool = False
    """Compare features under all treatments, clustered to the end."""
    pairs: tuple[str, ...] = ()
    """Folders of archives as downloaded (sWUGGY, sBLIMP, StoryCloze, SALMon) for the judge of pairs."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Judge the run; print and return the figures."""
    from slm_jax.core.errors import require
    from slm_jax.core.paths import is_local
    from slm_jax.evaluation.section import JudgeSettings
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import judging_context, read_run_config
    from slm_jax.workbench.judging import chosen, keep_figures, sections_of
    from slm_jax.workbench.report import report_of

    options = parse_options(EvaluateOptions, argv, "evaluate")
    settings = JudgeSettings(
        utterances=options.utterances, seeds=options.seeds, thorough=options.thorough, pairs=options.pairs
    )
    run = RunFolder(options.run)
    rule = "the report is written beside the run: copy the run to this machine first"
    require(is_local(run.path), "run folder", str(run.path), rule)
    config = read_run_config(run)
    judges = chosen(config, options.judges)
    context = judging_context(config, run, options.data_dir, say)
    system = config.load(context)
    sections = sections_of(judges, system, context, settings)
    figures = keep_figures(options.run, sections, before=bool(options.judges))
    print("\n\n".join(text_of(section) for section in sections))
    title = f"{config.name}: a spoken language model, heard and measured"
    lead = f"Reads {_joined(system.reads)}, writes {_joined(system.writes)}. Judged on speech it was not trained on."
    command = f"python -m slm_jax evaluate {options.run}"
    print(f"report: {report_of(options.run, title, lead, sections, command)}")
    return figures


def text_of(section: "Section") -> str:
    """A section for people: its words where it has no table, else its tables under its title."""
    if not section.tables:
        return f"{section.title}: {section.words}" if section.words else section.title
    from slm_jax.evaluation.metrics import marked

    tables = [table(one.rows, [marked(cell) for cell in one.header]) for one in section.tables]
    return "\n".join([section.title, *tables])


def _joined(kinds: frozenset[str]) -> str:
    return " and ".join(sorted(kinds))
