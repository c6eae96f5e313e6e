"""Let a run answer the items of a published benchmark, and write what it says in the form that scores it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from slm_jax.cli.console import say
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """VoiceBench, Dynamic-SUPERB and Full-Duplex-Bench, as downloaded; `turns` asks a duplex run its own questions.

    Nothing is scored here: the benchmarks' own scripts read what is written.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder that `train` made."""
    form: Annotated[Literal["voicebench", "dynamic_superb", "full_duplex", "turns"], tyro.conf.Positional]
    """Which benchmark; turns: the judge of turns, as folders of Full-Duplex-Bench."""
    items: Annotated[Path, tyro.conf.Positional]
    """VoiceBench: FOLDER/SUBSET; Dynamic-SUPERB: the folder of a task; Full-Duplex-Bench: that of its samples, which
    get their outputs; turns: where the samples go."""
    out: Path | None = None
    """Where predictions go; by default RUN/predictions."""
    split: str = "test"
    """Split of the items."""
    modality: Literal["audio", "text"] = "audio"
    """VoiceBench: asked by recordings or by words."""
    name: str | None = None
    """What the model is called; by default the name of the run folder."""
    count: int | None = None
    """Items at most."""
    words: bool = True
    """Full-Duplex-Bench: write output.json out of the run's own words; its recognizer overwrites it."""
    data_dir: Path = Path("data")
    """Where the corpus is prepared anew for a run folder that keeps no speech (turns)."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Write the predictions; print and return where they are."""
    from slm_jax.training.run_folder import RunFolder
    from slm_jax.training.stages import StageContext, read_run_config

    options = parse_options(BenchmarkOptions, argv, "benchmark")
    run = RunFolder(options.run)
    config = read_run_config(run)
    context = StageContext(run, config.corpus, options.data_dir)
    system = config.load(context)
    if options.form == "turns":
        found = _turns(options, config, run, system)
    elif options.form == "full_duplex":
        found = _full_duplex(options, system)
    else:
        found = _predicted(options, system)
    print(*(f"{name}: {value}" for name, value in found.items()), sep="\n")
    return found


def _predicted(options: BenchmarkOptions, system: Any) -> dict[str, Any]:
    """Replies in words to questions in speech and words."""
    from slm_jax.data.benchmarks.dynamic_superb import read_dynamic_superb, write_dynamic_superb
    from slm_jax.data.benchmarks.voicebench import read_voicebench, write_voicebench
    from slm_jax.judges.asking import at_rate, replies_to, text_of

    require("text" in system.writes, "run", str(options.run), "its system writes no text, which is what is scored")
    folder, place = options.items.parent, options.items.name
    voice = options.form == "voicebench"
    if voice:
        items = read_voicebench(folder, place, options.split, options.modality, options.count)
    else:
        items = read_dynamic_superb(options.items, options.split, options.count)
    missing = {kind for item in items for message in item.conversation() for kind in message.kinds} - system.reads
    require(not missing, "run", str(options.run), f"its system does not read {' and '.join(sorted(missing))}")
    say(f"{len(items)} items of {place}")
    texts = [text_of(one) for one in replies_to(system, [at_rate(one.conversation(), system.rate_hz) for one in items])]
    out, model = options.out or options.run / "predictions", options.name or options.run.resolve().name
    if voice:
        told = {"model": model, "subset": place, "split": options.split, "modality": options.modality}
        file = write_voicebench(out, items, texts, **told)  # type: ignore[arg-type]
    else:
        file = write_dynamic_superb(out, items, texts, model=model, task=place)
    return {"items": len(items), "empty": sum(not text for text in texts), "file": str(file)}


def _full_duplex(options: BenchmarkOptions, system: Any) -> dict[str, Any]:
    from slm_jax.evaluation.section import Lacking
    from slm_jax.judges.full_duplex import answer_samples

    try:
        return {"samples": answer_samples(options.items, system, options.words), "folder": str(options.items)}
    except Lacking as error:
        raise UserError(f"{options.run}: {error}") from error


def _turns(options: BenchmarkOptions, config: Any, run: Any, system: Any) -> dict[str, Any]:
    from slm_jax.evaluation.section import Lacking
    from slm_jax.judges.full_duplex import write_turns
    from slm_jax.judges.turns import TurnsJudge
    from slm_jax.training.stages import judging_context

    judge = next((one for one in config.judges if isinstance(one, TurnsJudge)), TurnsJudge())
    context = judging_context(config, run, options.data_dir, say)
    try:
        written = write_turns(options.items, judge, system, context, options.count or 8, options.words)
    except Lacking as error:
        raise UserError(f"{options.run}: {error}") from error
    return {**written, "folder": str(options.items)}
