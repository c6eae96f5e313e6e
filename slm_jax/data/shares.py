"""A pass over a corpus shared by the hosts of a machine: each does its part, the first puts the parts together."""

from collections.abc import Iterable
from typing import Any

import jax

from slm_jax.core.paths import AnyPath, remove_tree
from slm_jax.data.passes import in_order
from slm_jax.data.records import RecordSource, write_records
from slm_jax.parallel.hosts import all_arrived, on_first_host


def this_host() -> dict[str, Any]:
    """Whose share of a pass this process takes, as arguments of `data.passes.finite_batches`."""
    return {"host": jax.process_index(), "hosts": jax.process_count()}


def share_of(count: int) -> range:
    """The places of `range(count)` that are this host's, as `data.passes.finite_batches` deals them."""
    return range(jax.process_index(), count, jax.process_count())


def write_shared(folder: AnyPath, rows: Iterable[tuple[int, dict[str, Any]]], count: int) -> None:
    """Write the table of `count` rows at `folder`; `rows` are (place, row) for every place of this host's share.

    Returns when the table is there. On one host the rows go straight into it; on several each writes its part beside
    it first. Raises `ValueError` for a place that is missing or comes twice.
    """
    mine, hosts = share_of(count), jax.process_count()
    ordered = in_order(((place // hosts, row) for place, row in rows), len(mine))
    on_first_host(lambda: _clear(folder))
    if hosts == 1:
        write_records(folder, ordered)
        return
    if mine:  # a small corpus has nothing for the last hosts
        write_records(part_folder(folder, jax.process_index()), ordered)
    all_arrived(f"parts of {folder.name}")
    on_first_host(lambda: _join(folder, count, hosts))


def part_folder(folder: AnyPath, host: int) -> AnyPath:
    """Where host `host` puts its part of the table `folder`."""
    return folder.with_name(f".{folder.name}.host{host}")


def _clear(folder: AnyPath) -> None:
    """Remove the parts that a killed run, on however many hosts, has left."""
    for part in folder.parent.glob(f".{folder.name}.host*"):
        remove_tree(part)


def _join(folder: AnyPath, count: int, hosts: int) -> None:
    parts = [RecordSource(part_folder(folder, host)) for host in range(min(hosts, count))]
    write_records(folder, (parts[place % hosts][place // hosts] for place in range(count)))
    _clear(folder)
