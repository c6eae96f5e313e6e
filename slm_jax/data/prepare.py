"""Preparation: from a corpus config to a checked dataset on disk, with an account of every item."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slm_jax.core.config import content_hash
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath, Place, absolute, modified
from slm_jax.data.corpora import recordings, tfds_set, world_plans, world_records
from slm_jax.data.corpora.builders import PartsBuilder, PartsConfig, Recordings, World, dataset_folder, write_dataset
from slm_jax.data.corpora.filled_splits import filled
from slm_jax.data.corpora.folder import read_folder
from slm_jax.data.corpora.manifest import read_manifest
from slm_jax.data.corpora.parts import Work, run_parts
from slm_jax.data.corpora.report import INDEX, REJECTED, REPORT, WARNED, Report, describe, joint
from slm_jax.data.corpora.settings import (
    CorpusConfig,
    FolderConfig,
    ManifestConfig,
    RecordingsConfig,
    SeveralCorporaConfig,
    TaskCorpusConfig,
    TFDSConfig,
    WorldConfig,
)
from slm_jax.data.corpora.splits import SPLITS
from slm_jax.data.corpora.task_folder import task_folder, told_of_tasks
from slm_jax.data.corpora.world_phones import PHONES
from slm_jax.data.corpora.world_voice import voice_version

log = logging.getLogger(__name__)
FORMAT = 1
"""Raised when the stored form or the making of records changes: older datasets are then made again."""
SHOWN = 5


@dataclasses.dataclass
class _Account:
    """What a pass over the parts has seen so far."""

    parts: list[tuple[Path, int]] = dataclasses.field(default_factory=list)
    kept: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    rejected: list[dict[str, str]] = dataclasses.field(default_factory=list)
    warned: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def add(self, path: Path, records: list[dict[str, Any]]) -> None:
        self.parts.append((path, len(records)))
        for record in records:
            if "rejected" in record:
                self.reject(record["id"], record["rejected"], record["detail"])
                continue
            self.kept.append(record)
            self.warned += [{"item": record["id"], "reason": reason} for reason in record.get("warnings", ())]

    def reject(self, item: str, reason: str, detail: str) -> None:
        self.rejected.append({"item": item, "reason": reason, "detail": detail})

    @property
    def hours(self) -> float:
        return sum(record["seconds"] for record in self.kept) / 3600


@dataclasses.dataclass(frozen=True)
class _Source:
    """A corpus ready to be made: who writes it, under which name, and how its parts come about."""

    builder: type[PartsBuilder]
    name: str


def prepare_corpus(config: CorpusConfig, data_dir: Place, progress: bool = True) -> Report:
    """Make the corpus below `data_dir` unless it is there; go on where an earlier call was stopped.

    Nothing is dropped in silence: `rejected.jsonl` and `warnings.jsonl` in the dataset's folder name every item with
    its reason. Raises `UserError` when the corpus cannot be found, or when none of its items can be used (its message
    counts the reasons). Several corpora are made one after the other, and their report adds them up.
    """
    if isinstance(config, SeveralCorporaConfig):
        return joint([prepare_corpus(part.corpus, data_dir, progress) for part in config.corpora])
    started, data_dir = time.monotonic(), absolute(data_dir)
    config.check()
    if isinstance(config, TaskCorpusConfig):
        return told_of_tasks(config)
    source, listing = _identify(config)
    folder = dataset_folder(source.builder, source.name, data_dir)
    if (folder / REPORT).is_file():
        return dataclasses.replace(read_report(folder), cached=True)
    rule = "the corpus is not there, and is made on this machine only: prepare it in a folder here and copy that there"
    require(isinstance(data_dir, Path), "data_dir", str(data_dir), rule)
    data_dir, folder = Path(data_dir), Path(folder)
    parts_folder = data_dir / "parts" / f"{source.builder.name}-{source.name}"
    with _in_turn(parts_folder):
        if (folder / REPORT).is_file():  # another process has made it meanwhile
            return dataclasses.replace(read_report(folder), cached=True)
        account, parts = _account_of_parts(config, source.name, listing, parts_folder, progress)
        shutil.rmtree(folder, ignore_errors=True)  # what a kill has left: a dataset without its report
        write_dataset(source.builder, parts, data_dir)
        unread = dict(listing.unread) if isinstance(config, FolderConfig) else {}
        report = _write_account(config, folder, account, time.monotonic() - started, unread, len(parts.moved))
        shutil.rmtree(parts_folder)
    with contextlib.suppress(OSError):
        parts_folder.parent.rmdir()
    return report


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time make the parts in `folder`; the others wait.

    The lock is the kernel's and goes with its process, so that none is ever stale.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = folder.with_name(f"{folder.name}.lock")
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is making the corpus in %s: waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        place.unlink(missing_ok=True)


def _account_of_parts(
    config: CorpusConfig, name: str, listing: Any, folder: Path, progress: bool
) -> tuple[_Account, PartsConfig]:
    """All parts of a corpus, made where they are not there, and which of their items go where."""
    account = _Account()
    _make_parts(config, listing, folder, account, progress)
    if not account.kept:
        unread = listing.unread if isinstance(config, FolderConfig) else {}
        raise UserError(f"corpus {describe(config)}: no usable item, {_counts_text(account.rejected, unread)}")
    moved = filled(account.kept, config)
    for record in account.kept:
        record["split"] = moved.get(record["id"], record["split"])
    splits = tuple(split for split in SPLITS if any(record["split"] == split for record in account.kept))
    parts = tuple(account.parts)
    return account, PartsConfig(name=name, parts=parts, splits=splits, moved=moved, channels=config.channels)


def find_prepared(config: CorpusConfig, data_dir: Place) -> AnyPath:
    """The folder of the prepared corpus.

    Where the recordings themselves are gone, it is the newest that was made from them with these settings. Raises
    `UserError` when there is none.
    """
    data_dir = absolute(data_dir)
    if isinstance(config, TaskCorpusConfig):
        return task_folder(config)
    try:
        config.check()
        source, _ = _identify(config)
        folders = [dataset_folder(source.builder, source.name, data_dir)]
    except UserError:
        pattern = f"{_settings_hash(config)}-*/*/{REPORT}"
        found = (data_dir / Recordings.name).glob(pattern)
        folders = [path.parent for path in sorted(found, key=lambda path: -modified(path))]
    for folder in folders:
        if (folder / REPORT).is_file():
            return folder
    raise UserError(f"corpus {describe(config)} is not prepared in {str(data_dir)!r}: run prepare first")


def read_report(folder: AnyPath) -> Report:
    """The report of a prepared corpus."""
    return Report(**json.loads((folder / REPORT).read_text()))


def _identify(config: CorpusConfig) -> tuple[_Source, Any]:
    """Builder and name of a corpus, and for recordings what it lists."""
    if isinstance(config, WorldConfig):
        return _Source(World, _settings_hash(config)), None
    if isinstance(config, ManifestConfig):
        listing = read_manifest(config)
    elif isinstance(config, FolderConfig):
        listing = read_folder(config)
    elif isinstance(config, TFDSConfig):
        jobs, fingerprint = tfds_set.jobs(config)
        return _Source(Recordings, f"{_settings_hash(config)}-{content_hash(fingerprint)}"), jobs
    else:
        raise UserError(f"corpus config is a {type(config).__name__}: not a kind that can be prepared")
    return _Source(Recordings, f"{_settings_hash(config)}-{content_hash(listing.fingerprint)}"), listing


def _settings_hash(config: CorpusConfig) -> str:
    """The hash of everything but the recordings themselves."""
    identity = {"format": FORMAT, **config.identity()}
    if isinstance(config, WorldConfig):
        identity |= {"voice": voice_version(), "phones": PHONES}
    if isinstance(config, ManifestConfig | FolderConfig):
        identity["path"] = os.fsencode(Path(config.path).absolute()).decode(errors="backslashreplace")
    return content_hash(identity)


def _make_parts(config: CorpusConfig, listing: Any, folder: Path, account: _Account, progress: bool) -> None:
    """Fill `account` from all parts of the corpus, making those that are not there."""
    if isinstance(config, WorldConfig):
        for kind, field in world_plans.KINDS.items():
            _make_world(config, kind, getattr(config, field), folder, account, progress)
        return
    assert isinstance(config, RecordingsConfig)
    work: Work = tfds_set.read_items if isinstance(config, TFDSConfig) else recordings.read_entries
    jobs = listing if isinstance(config, TFDSConfig) else recordings.jobs(config, listing.entries)
    for rejection in () if isinstance(config, TFDSConfig) else listing.rejected:
        account.reject(*rejection)
    processes = 1 if len(jobs) == 1 else config.processes
    made = run_parts(jobs, work, folder, processes=processes)
    for path, records in tqdm(made, "reading", len(jobs), unit="part", disable=not progress):
        account.add(path, records)


def _make_world(config: WorldConfig, kind: str, hours: float, folder: Path, account: _Account, progress: bool) -> None:
    """Records of one kind until they fill `hours`; what the last part has beyond that is left out."""
    if not hours:
        return
    processes = 1 if hours < 0.02 else config.processes  # a minute of speech is made before a process has started
    jobs = world_plans.jobs(config, kind)
    made = run_parts(jobs, world_records.make_records, folder, processes=processes, name=kind)
    total_s = 0.0
    with tqdm(desc=f"speaking {kind}", total=round(hours * 3600), unit="s", disable=not progress) as bar:
        for path, records in made:
            kept = _until(records, hours * 3600 - total_s)
            account.add(path, kept)
            total_s += sum(record["seconds"] for record in kept)
            bar.update(min(round(total_s), bar.total) - bar.n)
            if total_s >= hours * 3600:
                return


def _until(records: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """The first records, up to the one with which they reach `seconds`."""
    kept = []
    for record in records:
        if seconds <= 0:
            break
        kept.append(record)
        seconds -= record["seconds"]
    return kept


def _write_account(
    config: CorpusConfig, folder: Path, account: _Account, seconds: float, unread: dict[str, int], moved: int
) -> Report:
    """Index, rejections, warnings, settings, and last of all the report, which says that the dataset is whole."""
    per_split = {split: [record for record in account.kept if record["split"] == split] for split in SPLITS}
    index = {
        split: {name: [record[name] for record in records] for name in ("id", "kind", "speaker", "seconds")}
        for split, records in per_split.items()
    }
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "settings.json").write_text(json.dumps(config.to_json(), indent=1))
    if isinstance(config, WorldConfig):
        (folder / "phones.json").write_text(json.dumps(PHONES, ensure_ascii=False))
    _write_lines(folder / REJECTED, account.rejected)
    _write_lines(folder / WARNED, account.warned)
    report = Report(
        corpus=describe(config),
        folder=str(folder),
        accepted={split: len(records) for split, records in per_split.items()},
        hours={split: sum(record["seconds"] for record in records) / 3600 for split, records in per_split.items()},
        rejected=_counts(account.rejected),
        warnings=_counts(account.warned),
        seconds=round(seconds, 2),
        unread=unread,
        moved=moved,
    )
    unfinished = folder / f".{REPORT}"
    unfinished.write_text(json.dumps(report.to_json(), indent=1))
    os.replace(unfinished, folder / REPORT)
    return report


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))


def _counts(rows: list[dict[str, str]]) -> dict[str, int]:
    return dict(sorted(Counter(row["reason"] for row in rows).items()))


def _counts_text(rows: list[dict[str, str]], unread: Mapping[str, int]) -> str:
    pairs = [*_counts(rows).items(), *((f"{suffix}, which is not read", count) for suffix, count in unread.items())]
    counts = ", ".join(f"{count} x {reason}" for reason, count in pairs)
    first = "".join(f"\n  {row['item']}: {row['detail']}" for row in rows[:SHOWN])
    return (counts or "it is empty") + first


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """The rows of `rejected.jsonl` or `warnings.jsonl`."""
    for line in path.read_text().splitlines():
        yield json.loads(line)
