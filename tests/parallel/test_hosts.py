"""Hosts: what a single process can show; `tests/multidevice` starts two."""

import os
import subprocess
import sys

import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel import hosts
from slm_jax.parallel.hosts import (
    Meetings,
    all_arrived,
    any_host,
    from_first_host,
    is_first_host,
    machine_shape,
    merged_state,
    on_first_host,
    start_hosts,
    union,
)


def test_one_process_agrees_with_itself():
    assert is_first_host()
    assert any_host(True)
    assert not any_host(False)
    assert from_first_host(7) == 7
    assert merged_state({"a": 1}) == {"a": 1}
    assert on_first_host(lambda: [1, "a"]) == [1, "a"]
    all_arrived("here")


@pytest.mark.parametrize(
    ("step_s", "expected"),
    [
        (0.01, [11, 21, 31, 41]),  # quick steps: every `most`
        (1.0, [11, 16, 21, 26, 31, 36, 41]),  # every five seconds
        (60.0, list(range(11, 42))),  # slow ones: each
    ],
)
def test_processes_meet_every_few_seconds(monkeypatch, step_s, expected):
    """After the first step, whose time is measured, in steps of the first host's choice."""
    now = [0.0]
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "from_first_host", lambda value: value)
    monkeypatch.setattr(hosts.time, "perf_counter", lambda: now[0])
    meetings, met = Meetings(10, most=10), []
    for step in range(11, 42):
        now[0] += step_s
        if meetings.due(step):
            met.append(step)
    assert met == expected


def test_a_single_process_may_stop_after_any_step():
    meetings = Meetings(0, most=10)
    assert all(meetings.due(step) for step in range(1, 5))


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=1")
    shape = machine_shape()
    assert shape["xla_flags"] == "--xla_backend_optimization_level=1"
    assert shape["processes"] == 1
    assert shape["cores"] >= 1
    assert shape["devices"] >= 1


def test_states_of_hosts_are_joined_by_key():
    first, second = {"shards": {"0": {"n": 1}}, "epoch": 2}, {"shards": {"1": {"n": 5}}, "epoch": 2}
    assert union(first, second) == {"shards": {"0": {"n": 1}, "1": {"n": 5}}, "epoch": 2}
    with pytest.raises(UserError, match=r"shards.0.n is 1 on one host and 3 on another"):
        union(first, {"shards": {"0": {"n": 3}}})


def test_wrong_addresses_are_refused_before_anything_starts():
    for address in ("localhost", ":80", "localhost:port", "localhost:0", "localhost:65536"):
        with pytest.raises(UserError, match=f"coordinator is {address!r}"):
            start_hosts(address, 2, 0)
    with pytest.raises(UserError, match="process index is 2"):
        start_hosts("localhost:1234", 2, 2)


ALONE = """
import socket, sys
from slm_jax.core.errors import UserError
from slm_jax.parallel.hosts import find_hosts, start_hosts

with socket.socket() as probe:
    probe.bind(("localhost", 0))
    free = probe.getsockname()[1]
for join in (find_hosts, lambda: start_hosts(f"localhost:{free}", 2, 1, wait_s=1)):
    try:
        join()
    except UserError as error:
        print(error, flush=True)
"""


def test_no_cluster_and_nobody_there_are_one_line_each():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "KUBERNETES"))}
    done = subprocess.run([sys.executable, "-c", ALONE], env=clean, capture_output=True, text=True, timeout=120)
    none, nobody = done.stdout.splitlines()
    assert none.startswith("no cluster is recognised here")
    assert nobody.startswith("the first host does not answer at localhost:")
