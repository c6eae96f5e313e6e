import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.passes import finite_batches, float_samples, in_order, one_behind


def recordings(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {"id": f"r{i}", "samples": rng.integers(-(2**15), 2**15, int(rng.integers(1, 90))).astype(np.int16)}
        for i in range(count)
    ]


def test_every_example_once_whole_and_scaled():
    source = recordings(37)
    seen = []
    for batch in finite_batches(source, (30, 60, 90), 4, ("id",)):
        assert batch["samples"].shape in {(4, 30), (4, 60), (4, 90)}
        assert batch["samples"].dtype == np.float32
        length = batch["samples"].shape[1]
        for samples, mask, index, valid, name in zip(
            *(batch[key] for key in ("samples", "mask", "index", "valid", "id")), strict=True
        ):
            if not valid:
                assert (index, name) == (-1, None)
                assert not mask.any()
                continue
            expected = source[index]["samples"]
            assert length - 30 < len(expected) <= length
            assert name == f"r{index}"
            np.testing.assert_array_equal(mask, np.arange(length) < len(expected))
            np.testing.assert_array_equal(samples[mask], expected / np.float32(32768))
            assert not samples[~mask].any()
            seen.append(int(index))
    assert sorted(seen) == list(range(37))


def test_few_shapes_and_few_empty_rows():
    batches = list(finite_batches(recordings(100), (45, 90), 8))
    assert {batch["samples"].shape for batch in batches} == {(8, 45), (8, 90)}
    assert sum(not batch["valid"].all() for batch in batches) <= 2


def test_hosts_share_the_work():
    source = recordings(21)
    seen = [
        {
            int(i)
            for batch in finite_batches(source, (90,), 4, host=host, hosts=3)
            for i in batch["index"][batch["valid"]]
        }
        for host in range(3)
    ]
    assert seen == [set(range(host, 21, 3)) for host in range(3)]


def test_other_keys_keep_their_dtype():
    (batch,) = finite_batches([{"units": np.arange(3, dtype=np.int32)}], (5,), 2, key="units")
    np.testing.assert_array_equal(batch["units"], [[0, 1, 2, 0, 0], [0] * 5])
    assert batch["units"].dtype == np.int32


@pytest.mark.parametrize(
    "lengths, options, message",
    [((30,), {}, "at most 30"), ((), {}, "increasing"), ((60, 30), {}, "increasing"), ((90,), {"host": 1}, "host")],
)
def test_settings_that_do_not_fit(lengths, options, message):
    with pytest.raises(UserError, match=message):
        list(finite_batches(recordings(20), lengths, 4, **options))


def test_results_come_back_in_order():
    source = recordings(23)
    rows = (
        (int(index), int(mask.sum()))
        for batch in finite_batches(source, (30, 60, 90), 4)
        for index, mask in zip(batch["index"], batch["mask"], strict=True)
    )
    assert list(in_order(rows, 23)) == [len(item["samples"]) for item in source]


def test_results_come_as_soon_as_they_can():
    pairs = iter([(1, "b"), (0, "a"), (-1, None), (2, "c")])
    ordered = in_order(pairs, 3)
    assert (next(ordered), next(ordered)) == ("a", "b")
    assert next(pairs) == (-1, None)
    assert list(ordered) == ["c"]


def test_results_wait_for_the_next_to_be_made():
    made = []
    results = one_behind(made.append(i) or i for i in range(4))
    assert [(next(results), list(made)) for _ in range(4)] == [
        (0, [0, 1]),
        (1, [0, 1, 2]),
        (2, [0, 1, 2, 3]),
        (3, [0, 1, 2, 3]),
    ]
    assert list(results) == []


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_waiting_results_all_come(count):
    assert list(one_behind(range(count))) == list(range(count))


@pytest.mark.parametrize(
    "indices, message", [([0, 2], "1 of 3"), ([0, 1, 1, 2], "twice"), ([0, 1, 2, 3], "3 of 3|came")]
)
def test_missing_and_repeated_results_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        list(in_order(((i, i) for i in indices), 3))


def test_samples_to_float():
    np.testing.assert_array_equal(float_samples(np.asarray([-32768, 0, 16384], np.int16)), [-1.0, 0.0, 0.5])
    same = np.asarray([0.25, -0.5], np.float32)
    assert float_samples(same) is same
    assert float_samples(same.astype(np.float64)).dtype == np.float32
