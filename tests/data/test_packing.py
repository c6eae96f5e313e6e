import itertools
from collections import Counter

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import PipelineConfig, make_batches

CONFIG = PipelineConfig(batch=4, seed=1)


def sentences(count: int) -> list[dict]:
    """Example i: `ids` count up from 1000 i, `durations` are i."""
    return [
        {"ids": np.arange(1 + i % 13, dtype=np.int32) + 1000 * i, "durations": np.full(1 + i % 13, i, np.int32)}
        for i in range(count)
    ]


def ids_only(count: int) -> list[dict]:
    return [{"ids": item["ids"]} for item in sentences(count)]


def keep(item, rng):
    return dict(item)


def take(sources, packing, count, config=CONFIG):
    batches = make_batches(sources, keep, config, packing=packing)
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def test_rows_hold_whole_examples_with_their_segments_and_positions():
    for batch in take(sentences(40), PackingConfig(length=32, keys=("ids", "durations")), 10):
        assert batch["ids"].shape == batch["segment_ids"].shape == batch["positions"].shape == (4, 32)
        np.testing.assert_array_equal(batch["mask"], batch["segment_ids"] > 0)
        for row in range(4):
            segments = batch["segment_ids"][row]
            assert (np.diff(segments[segments > 0]) >= 0).all()
            assert not batch["ids"][row][segments == 0].any()
            for segment in range(1, segments.max() + 1):
                where = segments == segment
                example = int(batch["ids"][row][where][0]) // 1000
                np.testing.assert_array_equal(batch["ids"][row][where], np.arange(1 + example % 13) + 1000 * example)
                np.testing.assert_array_equal(batch["durations"][row][where], example)
                np.testing.assert_array_equal(batch["positions"][row][where], np.arange(where.sum()))
            assert batch["example"][row] == batch["ids"][row][0] // 1000


def count_examples(batches) -> Counter:
    seen = Counter()
    for batch in batches:
        for row, segments in zip(batch["ids"], batch["segment_ids"], strict=True):
            seen.update(int(row[segments == segment][0]) // 1000 for segment in range(1, segments.max() + 1))
    return seen


def test_every_example_comes_once_per_epoch():
    one_shard = CONFIG.replace(virtual_shards=1)
    seen = count_examples(take(ids_only(40), PackingConfig(length=32), 40, one_shard))
    assert set(seen) == set(range(40))
    assert min(seen.values()) > 10
    assert max(seen.values()) - min(seen.values()) <= 2  # an epoch under way, and examples of the next in open bins


def test_shards_see_different_examples_and_together_all():
    seen = count_examples(take(ids_only(40), PackingConfig(length=32), 60))
    mean = sum(seen.values()) / 40
    assert set(seen) == set(range(40))
    # shards end their epochs on their own, so that counts spread a little around the mean
    assert all(abs(count - mean) < 0.15 * mean for count in seen.values())


def test_little_room_is_wasted():
    batches = take(ids_only(300), PackingConfig(length=64, bins=8), 30)
    assert np.mean([batch["mask"] for batch in batches]) > 0.85


@pytest.mark.parametrize(
    "packing, message",
    [
        (PackingConfig(length=8), "1 to 8 entries"),
        (PackingConfig(length=32, keys=("units",)), "nothing else"),
    ],
)
def test_examples_that_cannot_be_packed_are_named(packing, message):
    with pytest.raises(UserError, match=message):
        take(ids_only(40), packing, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_fewer_examples_than_shards_come_equally_often(count):
    config, packing = CONFIG.replace(batch=5), PackingConfig(length=14, bins=1)
    found = take(ids_only(count), packing, 24, config)
    assert all((batch["segment_ids"].max(1) >= 1).all() for batch in found)
    seen = count_examples(found)
    assert set(seen) == set(range(count)) and max(seen.values()) <= 1.6 * min(seen.values())
    again = take(ids_only(count), packing, 24, config)
    np.testing.assert_equal(again, found)


@pytest.mark.parametrize("changes", [{"length": 0}, {"bins": 0}, {"keys": ()}])
def test_config_checks_its_fields(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        PackingConfig(length=8).replace(**changes)
