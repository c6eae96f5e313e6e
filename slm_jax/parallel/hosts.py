"""Several processes as one machine."""

import json
import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from slm_jax.core.errors import UserError, require


def start_hosts(coordinator: str, processes: int, index: int) -> None:
    """Join `processes` processes into one machine; call it before anything else touches a device.

    `coordinator` is `host:port` of process 0. On CPU the collectives run over gloo.
    """
    require(":" in coordinator, "coordinator", coordinator, "must be host:port of process 0")
    require(0 <= index < processes, "process index", index, f"must lie in 0..{processes - 1}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator_address=coordinator, num_processes=processes, process_id=index)


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
    }


def any_host(flag: bool) -> bool:
    """True on every process when `flag` is True on one of them; all processes must call it at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


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
