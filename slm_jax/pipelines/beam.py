"""Shards as an Apache Beam pipeline: a list of jobs, dealt out, each made by the function that workers call.

Beam only distributes. A worker writes its shard itself, whole or not at all, and a retry finds it there; so that a
pipeline that was killed goes on with the shards that are missing, on another runner if need be.
"""

import importlib.util
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from slm_jax.core.errors import require
from slm_jax.core.paths import as_path
from slm_jax.data.shards.make import Spread
from slm_jax.data.shards.shard import accounted, do_shard
from slm_jax.data.shards.work import Job

BEAM_RUNNERS = {"direct": None, "dataflow": "DataflowRunner", "flink": "FlinkRunner", "spark": "SparkRunner"}
"""Our word -> Beam's runner; `direct` is the one inside of Beam's Python package, which fetches nothing: what Beam
calls DirectRunner may download another one."""
LOOK_S = 2.0
"""How often one looks which shards are there."""


def by_beam(runner: str, workers: int, flags: Sequence[str]) -> Spread:
    """What makes shards with Beam; raises `UserError` where it is not installed."""
    found = importlib.util.find_spec("apache_beam") is not None
    require(found, "runner", runner, "needs Apache Beam: an environment of `requirements-beam.txt` (`make beam`)")
    return partial(_spread, runner, workers, list(flags))


def _spread(
    runner: str, workers: int, flags: list[str], settings: str, folder: str, jobs: Sequence[Job]
) -> Iterator[Job]:
    """Runs the pipeline and yields shards as they are seen to be there; raises what the pipeline raises."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _run(runner, workers or os.cpu_count() or 1, flags, settings, folder, jobs)
        except BaseException as error:  # told in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    waiting, place = list(jobs), as_path(folder)
    while thread.is_alive() or waiting:
        thread.join(LOOK_S)
        if failed:
            raise failed[0]
        there = accounted(place, waiting)
        if not thread.is_alive() and not there:
            return  # it ended without them: whoever reads their accounts says which
        yield from there
        waiting = [job for job in waiting if job not in there]


def _run(runner: str, workers: int, flags: list[str], settings: str, folder: str, jobs: Sequence[Job]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    if BEAM_RUNNERS[runner] is None:
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        mode = "multi_processing" if workers > 1 else "in_memory"
        here: Any = FnApiRunner()
        told = [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        options = PipelineOptions([*told, "--default_sdk_harness_log_level=WARNING", *flags])
    else:
        here, options = BEAM_RUNNERS[runner], PipelineOptions(flags)
    with beam.Pipeline(runner=here, options=options) as pipeline:
        dealt = pipeline | "Jobs" >> beam.Create([tuple(job) for job in jobs]) | "Deal" >> beam.Reshuffle()
        dealt | "Make" >> beam.Map(_made, settings, folder)


def _made(job: tuple[str, int, int, int], settings: str, folder: str) -> tuple[str, int, int, int]:
    """What a worker of Beam does with a job."""
    return tuple(do_shard(settings, folder, Job(*job)))  # type: ignore[return-value]
