"""Hosts: what a single process can show; `tests/multidevice` starts two."""

import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.hosts import (
    any_host,
    from_first_host,
    is_first_host,
    machine_shape,
    merged_state,
    start_hosts,
    union,
)


def test_one_process_agrees_with_itself():
    assert is_first_host()
    assert any_host(True)
    assert not any_host(False)
    assert from_first_host(7) == 7
    assert merged_state({"a": 1}) == {"a": 1}


def test_the_machine_is_described():
    shape = machine_shape()
    assert shape["processes"] == 1
    assert shape["cores"] >= 1
    assert shape["devices"] >= 1


def test_states_of_hosts_are_joined_by_key():
    first, second = {"shards": {"0": {"n": 1}}, "epoch": 2}, {"shards": {"1": {"n": 5}}, "epoch": 2}
    assert union(first, second) == {"shards": {"0": {"n": 1}, "1": {"n": 5}}, "epoch": 2}
    with pytest.raises(UserError, match=r"shards.0.n is 1 on one host and 3 on another"):
        union(first, {"shards": {"0": {"n": 3}}})


def test_wrong_addresses_are_refused_before_anything_starts():
    with pytest.raises(UserError, match="coordinator is 'localhost'"):
        start_hosts("localhost", 2, 0)
    with pytest.raises(UserError, match="process index is 2"):
        start_hosts("localhost:1234", 2, 2)
