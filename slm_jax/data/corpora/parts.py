"""Work in small parts, in order, by several processes, and again after a kill: what all builders are made of.

A part is one file with a few dozen records. It appears whole or not at all, so that a run that was killed goes on
with the parts that are there. The order of the parts, and so the corpus, does not depend on the processes.
"""

import collections
import functools
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from slm_jax.data.worker_pool import new_pool, without_main

log = logging.getLogger(__name__)
Record = dict[str, Any]
Work = Callable[[Any], list[Record]]
"""One job to its records; a function at module level, since other processes import it."""

AHEAD = 2
"""Jobs in flight per process."""


def run_parts(
    jobs: Iterable[Any], work: Work, folder: Path, *, processes: int, name: str = "part"
) -> Iterator[tuple[Path, list[Record]]]:
    """`(file, records without their arrays)` of every job, in the order of the jobs.

    A job whose file is there already is not done again. The caller may stop early: what is in flight is dropped.
    `processes`: 1 works in this process, 0 takes one per core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbered = ((folder / f"{name}-{i:06d}.npz", job) for i, job in enumerate(jobs))
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        for path, job in numbered:
            if not is_part(path):
                write_part(path, work(job))
            yield path, read_meta(path)
        return
    yield from _in_pool(numbered, work, processes)


def _in_pool(numbered: Iterator[tuple[Path, Any]], work: Work, processes: int) -> Iterator[tuple[Path, list[Record]]]:
    pool: ProcessPoolExecutor | None = None
    waiting: collections.deque[tuple[Path, Any, Future | None]] = collections.deque()
    try:
        for path, job in numbered:
            future = None
            if not is_part(path):
                pool = pool or new_pool(processes)
                future = _submitted(pool, work, job, path)
            waiting.append((path, job, future))
            if len(waiting) > AHEAD * processes:
                yield _finished(work, *waiting.popleft())
        while waiting:
            yield _finished(work, *waiting.popleft())
    finally:
        if pool:
            pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, work: Work, job: Any, path: Path) -> Future:
    """The work on its way to a process; that of a pool that broke is broken too."""
    try:
        with without_main(work):
            return pool.submit(_work_and_write, work, job, path)
    except BrokenProcessPool as error:
        broken: Future = Future()
        broken.set_exception(error)
        return broken


def _finished(work: Work, path: Path, job: Any, future: Future | None) -> tuple[Path, list[Record]]:
    try:
        if future is not None:
            future.result()
    except BrokenProcessPool:
        _say_broken()
        write_part(path, work(job))
    return path, read_meta(path)


@functools.cache
def _say_broken() -> None:
    log.warning(
        "the processes that make the corpus have ended (out of memory, or a script that works outside of "
        "`if __name__ == '__main__':`): going on in one process; write processes=1 to start with one"
    )


def _work_and_write(work: Work, job: Any, path: Path) -> None:
    write_part(path, work(job))


def write_part(path: Path, records: list[Record]) -> None:
    """Write records atomically: arrays as arrays, everything else as JSON; no pickles."""
    arrays = {f"{i}.{key}": v for i, rec in enumerate(records) for key, v in rec.items() if isinstance(v, np.ndarray)}
    meta = [{key: v for key, v in rec.items() if not isinstance(v, np.ndarray)} for rec in records]
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, meta=text, **arrays)
    os.replace(unfinished, path)


def is_part(path: Path) -> bool:
    """Is there a whole part at `path`? A damaged one counts as absent and is made again."""
    try:
        read_meta(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True


def read_meta(path: Path) -> list[Record]:
    """The records of a part without their arrays."""
    with np.load(path, allow_pickle=False) as stored:
        return json.loads(stored["meta"].tobytes())


def read_part(path: Path, take: int, wanted: Callable[[Record], bool]) -> Iterator[Record]:
    """Those among the first `take` records of a part, with their arrays, whose JSON fields satisfy `wanted`."""
    with np.load(path, allow_pickle=False) as stored:
        names: dict[int, list[str]] = collections.defaultdict(list)
        for full in stored.files:
            index, dot, _ = full.partition(".")
            if dot:
                names[int(index)].append(full)
        for i, record in enumerate(json.loads(stored["meta"].tobytes())[:take]):
            if wanted(record):
                yield record | {full.partition(".")[2]: stored[full] for full in names[i]}
