import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_jax.token_compression.dedup import dedup, dedup_row, repeat, repeat_row

LENGTH = 12
jitted_dedup = jax.jit(dedup)
jitted_repeat = jax.jit(repeat, static_argnums=2)
few_units = st.lists(st.integers(0, 3), max_size=LENGTH)  # few different ones: many runs longer than 1


def padded(rows: list[list[int]], garbage: int = 0) -> tuple[jnp.ndarray, jnp.ndarray]:
    ids = np.full((len(rows), LENGTH), garbage, np.int32)
    mask = np.zeros((len(rows), LENGTH), bool)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
        mask[row, : len(values)] = True
    return jnp.asarray(ids), jnp.asarray(mask)


def runs(row: list[int]) -> list[list[int]]:
    """[unit, duration] pairs, the plain way."""
    found: list[list[int]] = []
    for unit in row:
        if found and found[-1][0] == unit:
            found[-1][1] += 1
        else:
            found.append([unit, 1])
    return found


@given(st.tuples(few_units, few_units, few_units), st.integers(0, 3))
def test_runs_and_exact_inverse(rows, garbage):
    ids, mask = padded(list(rows), garbage)
    units, durations, unit_mask = jitted_dedup(ids, mask)
    for row, values in enumerate(rows):
        count = int(unit_mask[row].sum())
        pairs = np.stack([units[row], durations[row]], 1)
        assert pairs[:count].tolist() == runs(values)
        assert not pairs[count:].any()
        assert not unit_mask[row, count:].any()
    again, again_mask = jitted_repeat(units, durations, LENGTH)
    np.testing.assert_array_equal(again_mask, mask)
    np.testing.assert_array_equal(again, jnp.where(mask, ids, 0))


def test_edges():
    rows = [[], [2], [2, 2], [0, 1], [0] * LENGTH, [1] * (LENGTH - 1) + [0], list(range(LENGTH))]
    for row in rows:
        units, durations, unit_mask = jitted_dedup(*padded([row, row[:1], []], garbage=9))
        found = [[int(u), int(d)] for u, d, m in zip(units[0], durations[0], unit_mask[0], strict=True) if m]
        assert found == runs(row)
        again, mask = jitted_repeat(units, durations, LENGTH)
        assert np.asarray(again)[0][np.asarray(mask)[0]].tolist() == row


@pytest.mark.parametrize("total, expected", [(8, [7, 7, 8, 8, 8, 0, 0, 0]), (4, [7, 7, 8, 8])])
def test_repeat_into_other_lengths(total, expected):
    units, durations = jnp.asarray([[7, 0, 8]]), jnp.asarray([[2, 0, 3]])  # a unit of duration 0 vanishes
    ids, mask = jitted_repeat(units, durations, total)
    assert ids[0].tolist() == expected
    assert mask[0].tolist() == [frame < 5 for frame in range(total)]


def test_jit_agrees_with_eager():
    ids, mask = padded([[1, 1, 0], [2] * LENGTH, [3]])
    for found, expected in zip(jitted_dedup(ids, mask), dedup(ids, mask), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(few_units)
def test_ragged_rows(row):
    ids = np.asarray(row, np.int32)
    units, durations = dedup_row(ids)
    assert [[int(u), int(d)] for u, d in zip(units, durations, strict=True)] == runs(row)
    assert durations.dtype == np.int32
    np.testing.assert_array_equal(repeat_row(units, durations), ids)
