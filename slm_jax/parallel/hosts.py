"""Several processes as one machine: how they join and agree.

What is only for the first host goes through `on_first_host`, which tells the others how it ended; so no host waits for
one that has failed.
"""

import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the key-value store has no public name; Orbax reads it here too
from jax.experimental import multihost_utils

from slm_jax.core.errors import UserError, require

JOIN_S = 300
"""How long a process waits for the others to appear."""
HEARTBEAT_S = 60
"""After how long a silence a process counts as lost: all others then end."""
SLICE_MS = 10_000
_calls = itertools.count()


def start_hosts(coordinator: str, processes: int, index: int, *, wait_s: int = JOIN_S) -> None:
    """Join `processes` processes into one machine; call it before anything else touches a device.

    `coordinator` is `host:port` of process 0. On CPU the collectives run over gloo. Raises `UserError` for arguments
    that cannot be right, and where process 0 does not listen within `wait_s` seconds. When a process does not come at
    all, JAX ends those that wait for it after that time, with a message of its own.
    """
    host, _, port = coordinator.rpartition(":")
    rule = "must be host:port of process 0"
    require(bool(host) and port.isdecimal() and 0 < int(port) < 2**16, "coordinator", coordinator, rule)
    require(0 <= index < processes, "process index", index, f"must lie in 0..{processes - 1}")
    if index > 0:
        _await_listener(host, int(port), wait_s)
    _join(wait_s, coordinator_address=coordinator, num_processes=processes, process_id=index)


def find_hosts(*, wait_s: int = JOIN_S) -> None:
    """`start_hosts` with what the cluster says: Cloud TPU, SLURM, Open MPI or Kubernetes, as JAX recognises them.

    Raises `UserError` where none of them is found.
    """
    _join(wait_s)


def _await_listener(host: str, port: int, wait_s: float) -> None:
    """Return when somebody listens; asked of JAX, it would end the process with a stack trace of C++."""
    end = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(f"the first host does not answer at {host}:{port}: {error}") from error
            time.sleep(0.2)


def _join(wait_s: int, **where: Any) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would catch SIGTERM in C++, where Python's handlers do not see it; the training loop saves on SIGTERM itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(initialization_timeout=wait_s, heartbeat_timeout_seconds=HEARTBEAT_S, **where)
    except ValueError as error:  # JAX asks for the arguments that no cluster has told it
        raise UserError("no cluster is recognised here: name the coordinator, the processes and the index") from error
    except (RuntimeError, OSError, KeyError) as error:
        at = where.get("coordinator_address", "the place that the cluster names")
        raise UserError(f"the hosts could not join at {at}: {_first_line(error)}") from error


def is_first_host() -> bool:
    """True on the process that writes files."""
    return jax.process_index() == 0


def machine_shape() -> dict[str, Any]:
    """What must stay the same for a resumed run to repeat every bit."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def on_first_host(action: Callable[[], Any]) -> Any:
    """Run `action` on the first host alone while the others wait; its result (a JSON value) on every host.

    All hosts must call it in the same order. A `UserError` of `action` is raised on every host, any other exception on
    the first only: the others hear of it by `watch.together`. The wait has no limit (a corpus may take hours) but ends
    when the first host is lost.
    """
    if jax.process_count() == 1:
        return action()
    key = f"slm_jax/first_host/{next(_calls)}"
    if not is_first_host():
        return _opened(json.loads(_awaited(key)))
    try:
        outcome = {"result": action()}
    except UserError as error:
        store().key_value_set(key, json.dumps({"error": str(error)}))
        raise
    store().key_value_set(key, json.dumps(outcome))
    return outcome["result"]


def all_arrived(name: str) -> None:
    """Wait until every host is here, however long it takes; `name` says where."""
    if jax.process_count() == 1:
        return
    key = f"slm_jax/arrived/{next(_calls)}-{name}"
    store().key_value_set(f"{key}/{jax.process_index()}", "here")
    if is_first_host():
        for index in range(jax.process_count()):
            _awaited(f"{key}/{index}")
        store().key_value_set(f"{key}/all", "here")
    _awaited(f"{key}/all")


def any_host(flag: bool) -> bool:
    """True on every process when `flag` is True on one of them; all processes must call it at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


class Meetings:
    """At which steps the processes talk about stopping and saving: all at the same ones, every few seconds.

    A notice of preemption leaves half a minute, in which steps may be slow; quick steps must not wait for talk each
    time. A single process may always. `most`: steps between two meetings at most.
    """

    EVERY_S = 5.0

    def __init__(self, step: int, most: int) -> None:
        self.most, self.last, self.next, self.since = most, step, step + 1, time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether this step ends with a meeting; all processes must ask after every step."""
        if jax.process_count() == 1:
            return True
        if step < self.next:
            return False
        now = time.perf_counter()
        each = (now - self.since) / max(step - self.last, 1)
        steps = from_first_host(max(1, min(self.most, int(self.EVERY_S / max(each, 1e-9)))))
        self.last, self.next, self.since = step, step + steps, now
        return True


def from_first_host(value: int) -> int:
    """The value that process 0 holds, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def merged_state(state: dict[str, Any]) -> dict[str, Any]:
    """The union of the JSON states of all hosts, so that a run can go on with another number of hosts.

    Raises `UserError` when two hosts hold different values under one key.
    """
    if jax.process_count() == 1:
        return state
    text = json.dumps(state).encode()
    longest = int(np.max(multihost_utils.process_allgather(np.asarray(len(text)))))
    padded = np.frombuffer(text.ljust(longest), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    merged: dict[str, Any] = {}
    for row in rows:
        merged = union(merged, json.loads(bytes(row).decode()))
    return merged


def union(first: dict[str, Any], second: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Keys of both, recursively; raises `UserError` for a key with two values."""
    merged = dict(first)
    for name, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = union(merged[name], value, f"{path}{name}.")
        elif merged.setdefault(name, value) != value:
            raise UserError(f"data state {path}{name} is {merged[name]!r} on one host and {value!r} on another")
    return merged


def store() -> Any:
    """The key-value store that the processes share, None for a process on its own."""
    return distributed.global_state.client


def _awaited(key: str) -> str:
    """The value of `key` once it is there; asks in slices, so that signals are served in between."""
    while True:
        try:
            return store().blocking_key_value_get(key, SLICE_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _opened(outcome: dict[str, Any]) -> Any:
    if "error" in outcome:
        raise UserError(outcome["error"])
    return outcome["result"]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
