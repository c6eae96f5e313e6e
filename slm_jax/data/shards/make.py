"""All shards of a work that are not there yet, then the tables that they form.

    OUT/
      work.json              what is done, and to what
      TABLE/00000.array_record ...   rows; TABLE/index.json makes them a table of `data.records`
      accounts/TABLE/00000.json ...  what each shard holds: a shard without one is made again
      index.json             columns of all rows, by table
      rejected.jsonl         every item that was left out, with its reason
      report.json            last of all: the whole is there

No file says when or by whom it was made, so that a folder that was interrupted ends with the bytes of one that was not.
"""

import contextlib
import fcntl
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from slm_jax.core.config import flatten, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath, Place, absolute, lock_file, write_whole
from slm_jax.data.progress import counted
from slm_jax.data.records import BLOCKS_VERSION, INDEX_FILE, LENGTHS_FILE, joint_schema
from slm_jax.data.shards.report import SHOWN, ShardReport
from slm_jax.data.shards.shard import (
    Account,
    account_of,
    clear_partial,
    read_account,
    settings_of,
    shard_path,
)
from slm_jax.data.shards.work import Job, ShardWork, jobs_of

WORK, REPORT, INDEX, REJECTED = "work.json", "report.json", "index.json", "rejected.jsonl"
FORMAT = 1
Spread = Callable[[str, str, Sequence[Job]], Iterator[Job]]
"""Makes shards of a work (settings, folder, jobs), in any order and anywhere; yields each when it is there."""


def make_shards(work: ShardWork, folder: Place, spread: Spread, progress: bool = True) -> ShardReport:
    """Make what is not there and tell what became of all items; the same folder whoever made it, in however many goes.

    Raises `UserError` where the folder holds other work, or where somebody else on this machine is making it.
    """
    started, folder = time.monotonic(), absolute(folder)
    work.check()
    with _held(folder):
        _begin(work, folder)
        jobs = jobs_of(work)
        waiting = [job for job in jobs if account_of(folder, job) is None]
        with counted(len(jobs), type(work).__name__.removesuffix("Config"), "shard", show=progress) as bar:
            bar.update(len(jobs) - len(waiting))
            for _ in spread(settings_of(work), str(folder), waiting) if waiting else ():
                bar.update()
        report = _finish(work, folder, jobs)
    seconds = round(time.monotonic() - started, 2)
    return _told(work, folder, report, made=len(waiting), kept=len(jobs) - len(waiting), seconds=seconds)


def read_work(folder: Place) -> ShardWork:
    """The work that a folder holds; raises `UserError` where it holds none."""
    path = absolute(folder) / WORK
    require(path.is_file(), "folder of shards", str(folder), f"has no {WORK}")
    work = from_json(json.loads(path.read_text())["work"])
    assert isinstance(work, ShardWork)  # for the type checker
    return work


def read_shard_report(folder: Place) -> ShardReport:
    """What became of the items of a folder that is finished; raises `UserError` where it is not."""
    path = absolute(folder) / REPORT
    require(path.is_file(), "folder of shards", str(folder), "is not finished: give the same command again")
    return _told(read_work(folder), absolute(folder), json.loads(path.read_text()))


@contextlib.contextmanager
def _held(folder: AnyPath) -> Iterator[None]:
    """Hold the folder against others of this machine; the lock is the kernel's and goes with its process."""
    place = lock_file(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"folder {str(folder)!r} is being made by another process: wait for it") from error
        yield


def _begin(work: ShardWork, folder: AnyPath) -> None:
    """Say what the folder is to hold, or refuse to make something else of it."""
    told = {"format": FORMAT, "work": work.binding_json(), "inputs": work.inputs()}
    path = folder / WORK
    if path.is_file():
        lines = diff(json.loads(path.read_text()), json.loads(json.dumps(told)))
        rule = f"it holds other work ({'; '.join(lines[:5])}): take another folder"
        require(not lines, "folder of shards", str(folder), rule)
        return
    write_whole(path, json.dumps(told, indent=1))


def diff(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines such as `work.per_shard: 256 -> 64` for every entry that differs."""
    before, now = flatten(old), flatten(new)
    names = sorted(before.keys() | now.keys())
    return [f"{name}: {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]


def _finish(work: ShardWork, folder: AnyPath, jobs: Sequence[Job]) -> dict[str, Any]:
    """The tables out of their shards, and last the report."""
    tables = {table: [job for job in jobs if job.table == table] for table in work.counts()}
    index, rows, left = {}, {}, []
    for table, mine in tables.items():
        accounts = [read_account(folder, job) for job in mine]
        clear_partial(folder, table)
        _write_index(folder, table, mine, accounts)
        index[table] = {name: [value for one in accounts for value in one["columns"][name]] for name in work.columns}
        rows[table] = sum(one["rows"] for one in accounts)
        left += [one for account in accounts for one in account["left"]]
    names = ("item", "reason", "detail")
    lines = [json.dumps(dict(zip(names, one, strict=True)), ensure_ascii=True) + "\n" for one in left]
    for name, value in {INDEX: index, **work.extras()}.items():
        write_whole(folder / name, json.dumps(value))
    write_whole(folder / REJECTED, "".join(lines))
    reasons = dict(sorted(Counter(one[1] for one in left).items()))
    shards = {table: len(mine) for table, mine in tables.items()}
    report = {"rows": rows, "shards": shards, "left": reasons, "first": left[:SHOWN]}
    write_whole(folder / REPORT, json.dumps(report, indent=1))
    return report


def _write_index(folder: AnyPath, table: str, jobs: Sequence[Job], accounts: Sequence[Account]) -> None:
    """Make the shards of a table one of `data.records`."""
    schema: dict[str, str] = {}
    lengths: dict[str, list[int]] = {}
    shards = []
    for job, account in zip(jobs, accounts, strict=True):
        name = shard_path(folder, job).name
        schema = joint_schema(schema, account["schema"], f"shard {name} of {table}")
        for field, values in account["lengths"].items():
            lengths.setdefault(field, []).extend(values)
        shards.append({"file": name, **{key: account[key] for key in ("rows", "bytes", "sha256")}})
    count = sum(one["rows"] for one in accounts)
    kept = io.BytesIO()
    np.savez(kept, **{name: np.asarray(values, np.int64) for name, values in lengths.items()})  # type: ignore[arg-type]
    (folder / table).mkdir(parents=True, exist_ok=True)
    (folder / table / LENGTHS_FILE).write_bytes(kept.getvalue())
    whole = {"format": BLOCKS_VERSION, "count": count, "schema": schema, "shards": shards}
    write_whole(folder / table / INDEX_FILE, json.dumps(whole, indent=1))


def _told(work: ShardWork, folder: AnyPath, report: dict[str, Any], **more: Any) -> ShardReport:
    first = tuple((item, reason, detail) for item, reason, detail in report["first"])
    counts = {name: report[name] for name in ("rows", "shards", "left")}
    name = type(work).__name__.removesuffix("Config")
    return ShardReport(name, str(folder), **counts, words=work.reasons, first=first, **more)
