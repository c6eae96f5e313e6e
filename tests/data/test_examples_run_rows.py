"""Runs as rows of delayed streams, and back."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.data.examples.run_rows import RunRowsConfig
from slm_jax.sequence_models.grid import GridConfig

COLUMNS = ("runs", "run_duration_class", "run_f0_class")
ROWS = RunRowsConfig(columns=COLUMNS, units=10, length=8)
ITEM = {"runs": np.array([4, 7, 1]), "run_duration_class": np.array([2, 3, 5]), "run_f0_class": np.array([9, 0, 6])}
STEPS = [[10, EMPTY, EMPTY], [4, EMPTY, EMPTY], [7, 2, 9], [1, 3, 0], [12, 5, 6]]


def test_streams_beside_the_units_stand_a_step_later():
    row = ROWS.make()(ITEM, np.random.default_rng(0))
    np.testing.assert_array_equal(row["ids"][:5], STEPS)
    assert (row["ids"][5:] == EMPTY).all()
    np.testing.assert_array_equal(row["mask"], np.arange(8) < 5)
    assert "hidden" not in row


def test_without_a_shift_they_stand_beside_them():
    steps = ROWS.replace(shift=0).sequence(ROWS.entries(ITEM))
    np.testing.assert_array_equal(steps[1:-1], ROWS.entries(ITEM))


@pytest.mark.parametrize("shift", [0, 1])
def test_an_opening_and_what_follows_are_the_whole(shift):
    rows = ROWS.replace(shift=shift)
    entries = rows.entries(ITEM)
    whole = rows.sequence(entries)
    for cut in (1, 2):
        steps, following = rows.opening(entries[:cut])
        np.testing.assert_array_equal(steps, whole[: cut + 1])
        rest = whole[cut + 1 :]
        known = following[0] != -1
        np.testing.assert_array_equal(following[0][known], rest[0][known])
        assert known.tolist() == [False, bool(shift), bool(shift)]
        np.testing.assert_array_equal(rows.continued(rest), entries[cut:])


def test_a_run_that_is_cut_short_is_left_out():
    rest = ROWS.sequence(ROWS.entries(ITEM))[2:4]  # the last unit has no duration yet
    np.testing.assert_array_equal(ROWS.continued(rest), ROWS.entries(ITEM)[1:2])


def test_long_rows_are_cut_at_random_and_real_numbers_lie_on_their_grid():
    grid = GridConfig(lowest=-1.0, step=0.5, count=5)
    rows = RunRowsConfig(columns=("runs", "f0"), units=50, length=4, grids=(None, grid))
    item = {"runs": np.arange(30), "f0": np.linspace(-3, 3, 30)}
    starts = {int(rows.make()(item, np.random.default_rng(seed))["ids"][0, 0]) for seed in range(20)}
    assert len(starts) > 5
    ids = rows.entries(item)[:, 1]
    assert ids.min() == 0
    assert ids.max() == 4
    inside = np.abs(item["f0"]) <= 1
    assert np.abs(grid.values(ids) - item["f0"])[inside].max() <= 0.25


def test_what_is_hidden_is_hidden_as_often_as_was_asked_for():
    rows = ROWS.replace(length=1000, hidden=(0.0, 0.5, 0.0), hidden_runs=(0.0, 0.0, 0.25), stretch=4)
    hidden = np.stack([rows.make()(ITEM, np.random.default_rng(seed))["hidden"] for seed in range(60)])
    assert not hidden[..., 0].any()
    assert set(hidden[..., 1].mean(1)) == {0.0, 1.0}
    assert 0.3 < hidden[..., 1].mean() < 0.7
    assert 0.2 < hidden[..., 2].mean() < 0.3
    assert (hidden[:, ::4, 2] == hidden[:, 3::4, 2]).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="shift is 2: 0 or 1"):
        ROWS.replace(shift=2)
    with pytest.raises(UserError, match=r"hidden is \(0.5,\): a share in \[0, 1\) for each of the streams"):
        ROWS.replace(hidden=(0.5,))
