"""Make a corpus ready for training, with an account of every item that was left out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slm_jax.cli.options import parse_options
from slm_jax.core.errors import require

if TYPE_CHECKING:
    from slm_jax.data.shards.tasks import TaskShardsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Prepare a corpus: world, world:hours=1,speakers=4, manifest:PATH, folder:PATH, tfds:NAME or tasks:PATH.

    With --tasks its items then become examples of tasks, a corpus `tasks:FOLDER` for speech-aware stages.
    """

    corpus: Annotated[str, tyro.conf.Positional]
    """Which speech."""
    data_dir: Path = Path("data")
    """Where prepared corpora are kept."""
    tasks: tuple[str, ...] = ()
    """Of transcription, translation, question, instruction: what the items are to be examples of."""
    translations: tuple[str, ...] = ()
    """Which fields of an item hold translations, and their languages: german=German."""
    per_item: int = 0
    """Examples of one item at most, 0 for one of each task."""
    voices: int = 0
    """So many voices of the world speak the instructions, once more each."""
    out: Path | None = None
    """Where the examples go; by default a folder below DATA_DIR/tasks."""
    per_shard: int = 256
    """Items of one shard of examples."""
    workers: int = 0
    """Processes that make them, 0 for one per core; what is made does not depend on it."""
    runner: str = "workers"
    """Who makes them: workers, or Apache Beam by direct (this machine), dataflow, flink, spark."""
    beam: tuple[str, ...] = ()
    """Options of Beam, such as project=NAME region=NAME temp_location=gs://BUCKET/tmp."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Prepare the corpus, and its examples of tasks, unless they are there; print and return the reports."""
    from slm_jax.cli.sharding import made
    from slm_jax.data.corpus import parse_corpus, prepare_corpus

    options = parse_options(PrepareOptions, argv, "prepare")
    require(bool(options.tasks) or not options.translations, "--translations", options.translations, "go with --tasks")
    config = parse_corpus(options.corpus)
    report = prepare_corpus(config, options.data_dir)
    print(report.to_text())
    if not options.tasks:
        return report.to_json()
    return report.to_json() | {"tasks": made(work_of(options, config), options, "tasks")}


def work_of(options: PrepareOptions, config: Any) -> "TaskShardsConfig":
    """What is to be done with the items of the prepared corpus."""
    from slm_jax.data.examples.named_tasks import named_tasks
    from slm_jax.data.examples.spoken_tasks import SpeakersConfig
    from slm_jax.data.shards.tasks import TaskShardsConfig

    pairs = [pair.partition("=") for pair in options.translations]
    for field, equals, language in pairs:
        require(bool(field and equals and language), "--translations", options.translations, "write field=Language")
    speakers = SpeakersConfig(count=options.voices) if options.voices else None
    tasks = named_tasks(options.tasks, config, [(field, language) for field, _, language in pairs], speakers)
    settings = {"per_shard": options.per_shard, "per_item": options.per_item, "data_dir": str(options.data_dir)}
    return TaskShardsConfig(corpus=config.replace(processes=0), tasks=tasks, **settings)  # type: ignore[arg-type]
