"""Who makes the shards: processes of this machine, or Apache Beam wherever it runs; the shards are the same."""

from collections.abc import Sequence
from functools import partial

from slm_jax.core.config import Config
from slm_jax.core.errors import nearest, require
from slm_jax.data.shards.make import Spread
from slm_jax.data.shards.workers import by_workers
from slm_jax.pipelines.beam import BEAM_RUNNERS, by_beam

WORKERS = "workers"
RUNNERS = (WORKERS, *BEAM_RUNNERS)


class RunnerConfig(Config):
    """`runner`: `workers` (processes of this machine), or Beam: `direct` (this machine), `dataflow`, `flink`, `spark`.

    `workers`: how many, 0 for one per core; of Beam elsewhere its own options say so. `options`: of Beam, as
    `name=value`.
    """

    runner: str = WORKERS
    workers: int = 0
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rule = f"must be one of {', '.join(RUNNERS)}{nearest(self.runner, RUNNERS)}"
        require(self.runner in RUNNERS, "runner", self.runner, rule)
        require(self.workers >= 0, "workers", self.workers, "0 for one per core, or a positive number")
        beam = self.runner != WORKERS
        require(beam or not self.options, "options", self.options, "are those of Beam: name a runner of it")

    def make(self) -> Spread:
        """What makes shards; raises `UserError` where Beam is asked for and not installed."""
        if self.runner == WORKERS:
            return partial(by_workers, processes=self.workers)
        return by_beam(self.runner, self.workers, _flags(self.options))


def _flags(options: Sequence[str]) -> list[str]:
    return [f"--{option.removeprefix('--')}" for option in options]
