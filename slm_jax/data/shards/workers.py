"""Shards shared out to processes of this machine."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed

from slm_jax.data.shards.shard import do_shard
from slm_jax.data.shards.work import Job
from slm_jax.data.worker_pool import new_pool, without_main


def by_workers(settings: str, folder: str, jobs: Sequence[Job], processes: int = 0) -> Iterator[Job]:
    """Makes the shards, each yielded when it is there. `processes`: 1 works in this one, 0 takes one per core.

    The first error of a worker is raised here; shards that are done by then stay.
    """
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes <= 1:
        yield from (do_shard(settings, folder, job) for job in jobs)
        return
    pool = new_pool(processes)
    try:
        with without_main(do_shard):
            waiting = [pool.submit(do_shard, settings, folder, job) for job in jobs]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
