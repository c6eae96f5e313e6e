"""What verbs that work in shards share: who makes them, where they go, how it ends."""

from pathlib import Path
from typing import Any

from slm_jax.core.config import content_hash


def made(work: Any, options: Any, where: str) -> dict[str, Any]:
    """Make the shards of a work that are not there, print and return what became of its items.

    They go to `options.out`, or to a folder below `options.data_dir`/`where` that is named after the work.
    """
    from slm_jax.data.shards.make import make_shards
    from slm_jax.pipelines.runner import RunnerConfig

    runner = RunnerConfig(runner=options.runner, workers=options.workers, options=options.beam)
    spread = runner.make()
    work.check()
    name = content_hash([work.binding_json(), work.inputs()])
    folder = str(options.out or Path(options.data_dir) / where / name)
    report = make_shards(work, folder, spread)
    print(report.to_text())
    return report.to_json()
