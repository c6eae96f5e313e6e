"""Options of a verb that several hosts run as one machine, and how they begin and end together."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Literal

from slm_jax.cli.console import say
from slm_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostOptions:
    """Which other processes take part."""

    hosts: Literal["one", "auto"] = "one"
    """With `auto` every host runs this command, and they join as Cloud TPU, SLURM, Open MPI or Kubernetes says."""
    coordinator: str | None = None
    """To join by hand: HOST:PORT of the first host with any free port, the same on every host."""
    processes: int | None = None
    """To join by hand: how many processes there are."""
    index: int | None = None
    """To join by hand: which of them this is, from 0."""


@contextlib.contextmanager
def joined(options: HostOptions) -> Iterator[None]:
    """Make one machine of the processes that the options name; nothing may touch a device before.

    Inside, only the first host speaks, but every host says why it fails. Raises `UserError` for options that do not
    go together and where the hosts cannot join.
    """
    if not join(options):
        yield
        return
    from slm_jax.parallel.hosts import is_first_host
    from slm_jax.parallel.watch import together

    with together(say):
        if not is_first_host():
            logging.getLogger("slm_jax").setLevel(logging.ERROR)
        yield


def join(options: HostOptions) -> bool:
    """Start what the options say; False for a process on its own."""
    from slm_jax.parallel.hosts import find_hosts, start_hosts

    by_hand = {f"--{name}": getattr(options, name) for name in ("coordinator", "processes", "index")}
    given = [name for name, value in by_hand.items() if value is not None]
    if given and options.hosts == "auto":
        raise UserError(f"--hosts auto finds out by itself what {given[0]} says: leave one of them out")
    if given and len(given) < len(by_hand):
        missing = " and ".join(name for name in by_hand if name not in given)
        raise UserError(f"{missing} missing: --coordinator, --processes and --index go together")
    if options.hosts == "auto":
        find_hosts()
    elif options.coordinator is not None and options.processes is not None and options.index is not None:
        start_hosts(options.coordinator, options.processes, options.index)
    return bool(given) or options.hosts == "auto"


def speaks() -> bool:
    """True on the host that prints."""
    from slm_jax.parallel.hosts import is_first_host, store

    return store() is None or is_first_host()
