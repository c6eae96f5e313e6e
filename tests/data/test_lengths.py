import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.lengths import bucket_lengths, source_lengths
from slm_jax.data.records import RecordSource, write_records


def test_lengths_of_any_source_and_of_a_table(tmp_path):
    source = [{"samples": np.zeros(count, np.int16)} for count in (3, 1, 4, 1, 5, 9)]
    expected = [len(item["samples"]) for item in source]
    np.testing.assert_array_equal(source_lengths(source, "samples"), expected)
    write_records(tmp_path / "table", source)
    np.testing.assert_array_equal(source_lengths(RecordSource(tmp_path / "table"), "samples"), expected)


def test_bucket_lengths_cover_everything_in_equal_parts():
    lengths = np.random.default_rng(0).integers(1, 1000, 400)
    buckets = bucket_lengths(lengths, 4, multiple=16)
    assert len(buckets) == 4
    assert all(length % 16 == 0 for length in buckets)
    assert buckets[-1] >= lengths.max() > buckets[-1] - 16
    counts = np.diff(np.searchsorted(np.sort(lengths), (0, *buckets), side="right"))
    assert all(85 <= count <= 115 for count in counts)
    assert bucket_lengths(np.asarray([7, 7, 7]), 4, multiple=5) == (10,)
    with pytest.raises(UserError, match="at least one example"):
        bucket_lengths(np.asarray([], np.int64))
