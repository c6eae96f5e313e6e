"""Small corpora: no split stays empty for bad luck where there is something to put into it."""

import hashlib
from collections.abc import Iterable
from typing import Any

from slm_jax.data.corpora.settings import CorpusConfig

FEWEST = 3
"""Groups from which on every split gets one: one for each of train, dev and test."""


def filled(records: Iterable[dict[str, Any]], config: CorpusConfig) -> dict[str, str]:
    """Which records move to which split, by id, so that no split is empty; nothing for all but small corpora.

    Items go by groups, what `split_by` holds together (`group` of a record, its id where it has none): a group is
    never torn, and one whose split its manifest states (an empty `group`) stays. Training comes first. From three
    groups on test and dev get one each, unless their share is 0. Who moves is decided by the order of hashes alone:
    the lowest go to test, the next to dev, the highest to train, as they would have gone by their shares.
    """
    groups: dict[str, list[str]] = {}
    split_of: dict[str, str] = {}
    stated: dict[str, set[str]] = {"train": set(), "dev": set(), "test": set()}
    for record in records:
        name = record.get("group", record["id"] if config.split_by == "id" else "")
        if name:
            groups.setdefault(name, []).append(record["id"])
            split_of[name] = record["split"]
        else:
            stated[record["split"]].add(record["id"])
    before = dict(split_of)
    enough = len(groups) + sum(map(len, stated.values())) >= FEWEST
    shares = {"train": 1.0, "test": config.test_share, "dev": config.dev_share}
    for wanted in [split for split, share in shares.items() if share > 0 and (enough or split == "train")]:
        if not stated[wanted] and wanted not in split_of.values():
            _fill(wanted, split_of, stated)
    moved = [name for name, split in split_of.items() if split != before[name]]
    return {item: split_of[name] for name in moved for item in groups[name]}


def _fill(wanted: str, split_of: dict[str, str], stated: dict[str, set[str]]) -> None:
    """Move the nearest group to `wanted` from a split that keeps another one; training may take the last."""
    splits = list(split_of.values())
    spare = [name for name, split in split_of.items() if wanted == "train" or splits.count(split) > 1 or stated[split]]
    if spare:
        split_of[min(spare, key=lambda name: _distance(name, wanted))] = wanted


def _distance(group: str, wanted: str) -> tuple[float, str]:
    place = int.from_bytes(hashlib.sha256(group.encode(errors="backslashreplace")).digest()[:8], "big") / 2**64
    return (1 - place if wanted == "train" else place, group)
