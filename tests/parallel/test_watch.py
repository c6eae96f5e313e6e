"""Ending together: what one process can show; `tests/faults/test_lost_host.py` has two that are killed and fail."""

import jax
import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.watch import _loss, leave_if_failed, together


def test_one_host_ends_as_it_would_anyway():
    said = []
    with pytest.raises(UserError, match="bad"), together(said.append):
        raise UserError("bad")
    leave_if_failed(3)  # nothing failed together: this process goes on
    assert said == []


def test_a_lost_host_is_recognised_behind_other_errors():
    broken = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    behind = UserError("checkpoint of step 3 could not be written")
    behind.__cause__ = broken
    assert _loss(broken) is broken
    assert _loss(behind) is broken
    assert _loss(full) is None
    assert _loss(UserError("gloo")) is None
