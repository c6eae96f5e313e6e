"""Work in small parts, in order, by several processes, and again after a kill: what all builders are made of.

A part is one file with a few dozen records. It appears whole or not at all, so that a run that was killed goes on
with the parts that are there. The order of the parts, and so the corpus, does not depend on the processes.
"""

import collections
import json
import multiprocessing
import os
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

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
    pool = None
    waiting: collections.deque[tuple[Path, Any]] = collections.deque()
    try:
        for path, job in numbered:
            if is_part(path):
                waiting.append((path, None))
            else:
                pool = pool or _new_pool(processes)
                waiting.append((path, pool.submit(_work_and_write, work, job, path)))
            if len(waiting) > AHEAD * processes:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        if pool:
            pool.shutdown(wait=True, cancel_futures=True)


def _new_pool(processes: int) -> ProcessPoolExecutor:
    """Fresh interpreters: a fork of a process that runs JAX's threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def _finished(path: Path, future: Any) -> tuple[Path, list[Record]]:
    if future is not None:
        future.result()
    return path, read_meta(path)


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
