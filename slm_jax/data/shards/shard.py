"""One shard of a work: an ArrayRecord file, and beside it the account that says that it is whole."""

import functools
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath, as_path, copy_file, entries, file_size, is_local, write_whole
from slm_jax.data.records import file_sha256, joint_schema, pack_row, schema_of
from slm_jax.data.shards.work import Job, Left, Row, ShardWork

ACCOUNTS = "accounts"
PARTIAL = ".partial"
Account = dict[str, Any]


def do_shard(settings: str, folder: str, job: Job) -> Job:
    """Make one shard of the work that `settings` (its JSON) describe; everything a worker of any kind calls.

    A shard that is there already is left alone. What is returned says that it is there now.
    """
    place = as_path(folder)
    if account_of(place, job) is None:
        work = work_of(settings)
        write_shard(place, job, work.rows(job.table, range(job.start, job.stop)), work.columns)
    return job


@functools.lru_cache(maxsize=4)
def work_of(settings: str) -> ShardWork:
    """The work that JSON describes; once in a process, so that what it opens stays open."""
    work = from_json(json.loads(settings))
    require(isinstance(work, ShardWork), "work", settings[:80], "it is no config of work in shards")
    assert isinstance(work, ShardWork)  # for the type checker
    return work


def settings_of(work: ShardWork) -> str:
    """The JSON by which a work travels."""
    return json.dumps(work.to_json(), sort_keys=True)


def shard_path(folder: AnyPath, job: Job) -> AnyPath:
    """Where the rows of a shard lie."""
    return folder / job.table / f"{job.number:05d}.array_record"


def account_path(folder: AnyPath, job: Job) -> AnyPath:
    """Where its account lies."""
    return folder / ACCOUNTS / job.table / f"{job.number:05d}.json"


def account_of(folder: AnyPath, job: Job) -> Account | None:
    """The account of a shard that is there and whole by its size, of these items; None where it is to be made."""
    try:
        account = json.loads(account_path(folder, job).read_text())
        same = account["items"] == [job.start, job.stop]
        return account if same and file_size(shard_path(folder, job)) == account["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def accounted(folder: AnyPath, jobs: Sequence[Job]) -> list[Job]:
    """Those shards that have an account, as the names in its folders tell: one look at each, whatever their number."""
    names = {job.table: {path.name for path in entries(folder / ACCOUNTS / job.table)} for job in _one_of_each(jobs)}
    return [job for job in jobs if account_path(folder, job).name in names[job.table]]


def _one_of_each(jobs: Sequence[Job]) -> list[Job]:
    return list({job.table: job for job in jobs}.values())


def write_shard(folder: AnyPath, job: Job, rows: Iterable[Row | Left], columns: tuple[str, ...]) -> Account:
    """Write rows and account of a shard, in this order, each whole or not at all; returns the account."""
    path, account = shard_path(folder, job), account_path(folder, job)
    for place in (path, account):
        place.parent.mkdir(parents=True, exist_ok=True)
    here = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    partial = here / f".{job.table}-{path.name}.{os.getpid()}{PARTIAL}"
    try:
        told = _write_rows(partial, rows, columns)
        told |= {"items": [job.start, job.stop], "bytes": partial.stat().st_size, "sha256": file_sha256(partial)}
        _put(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    write_whole(account, json.dumps(told, sort_keys=True))
    return told


def _put(written: Path, path: AnyPath) -> None:
    if isinstance(path, Path):
        os.replace(written, path)
    else:
        copy_file(written, path)  # an object of a store appears when it is whole


def _write_rows(path: Path, rows: Iterable[Row | Left], columns: tuple[str, ...]) -> Account:
    """Rows to a file, and what the account says of them."""
    left: list[Left] = []
    kept: dict[str, list[Any]] = {name: [] for name in columns}
    lengths: dict[str, list[int]] = {}
    schema: dict[str, str] = {}
    writer = ArrayRecordWriter(str(path), "group_size:1")
    count = 0
    for row in rows:
        if isinstance(row, Left):
            left.append(row)
            continue
        schema = joint_schema(schema, schema_of(row), f"row {count}")
        for name, value in row.items():
            if isinstance(value, np.ndarray) and value.ndim:
                lengths.setdefault(name, []).append(len(value))
        for name in columns:
            kept[name].append(row[name])
        writer.write(pack_row(row))
        count += 1
    writer.close()
    return {"rows": count, "schema": schema, "lengths": lengths, "columns": kept, "left": [list(one) for one in left]}


def read_account(folder: AnyPath, job: Job) -> Account:
    """The account of a shard that must be there; raises `UserError` where it is not."""
    account = account_of(folder, job)
    if account is None:
        raise UserError(f"shard {str(shard_path(folder, job))!r} is not there: a worker has failed; start it again")
    return account


def clear_partial(folder: AnyPath, table: str) -> None:
    """Remove what workers that were killed have left of shards in a folder of this machine."""
    if is_local(folder):
        for path in (folder / table).glob(f".*{PARTIAL}"):
            path.unlink(missing_ok=True)
        for path in (folder / ACCOUNTS / table).glob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)
