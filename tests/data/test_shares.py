"""Tables that several hosts write together; `tests/multidevice` does it with real ones."""

import numpy as np
import pytest

from slm_jax.data.records import RecordSource
from slm_jax.data.shares import part_folder, share_of, write_shared


def rows(count):
    return [(place, {"id": str(place), "x": np.full(1 + place % 3, place)}) for place in range(count)]


def test_one_host_puts_rows_in_order_and_clears_what_a_killed_run_left(tmp_path):
    table = tmp_path / "train"
    left = part_folder(table, 3)
    left.mkdir()
    (left / "index.json").write_text("{}")
    write_shared(table, iter(rows(7)[::-1]), 7)
    source = RecordSource(table)
    assert [source[i]["id"] for i in range(7)] == [str(i) for i in range(7)]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert share_of(7) == range(7)


def test_a_place_that_never_comes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="index 2 of 4 never came"):
        write_shared(tmp_path / "train", [row for row in rows(4) if row[0] != 2], 4)
