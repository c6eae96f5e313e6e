import itertools
import json
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.buckets import BucketConfig
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import PipelineConfig, gather, make_batches, split

CONFIG = PipelineConfig(batch=8, seed=3)


class Ragged:
    """Example i is `i` repeated 1 to 13 times."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict:
        return {"ids": np.full(1 + i % 13, self.first + i, np.int32)}


def fixed(item, rng):
    return {"ids": item["ids"][:1], "noise": rng.random(2)}


def whole(item, rng):
    return {"ids": item["ids"]}


KINDS = {
    "fixed": (fixed, {}),
    "packed": (whole, {"packing": PackingConfig(length=32)}),
    "buckets": (whole, {"buckets": BucketConfig(lengths=(4, 8, 16))}),
}
MIXTURE = [(Ragged(30), 0.7), (Ragged(17, first=100), 0.3)]


@pytest.fixture
def batches():
    """`make_batches`, closed after the test so that reading threads do not pile up."""
    made = []

    def make(*args, **kwargs):
        made.append(make_batches(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def side_by_side(hosts) -> list[dict]:
    """Global batches out of those of all hosts."""
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*hosts, strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sources", [Ragged(50), MIXTURE], ids=["one", "mixture"])
def test_saved_on_two_hosts_resumes_on_one_and_four(batches, kind, sources):
    example_fn, options = KINDS[kind]
    expected = take(batches(sources, example_fn, CONFIG, **options), 25)
    two = [batches(sources, example_fn, CONFIG, host=host, hosts=2, **options) for host in range(2)]
    assert_same(side_by_side([take(host, 11) for host in two]), expected[:11])
    state = json.loads(json.dumps(gather([host.get_state() for host in two])))
    assert len(json.dumps(state)) < 3000
    for hosts in (1, 4):
        again = [batches(sources, example_fn, CONFIG, host=host, hosts=hosts, **options) for host in range(hosts)]
        for host, iterator in enumerate(again):
            iterator.set_state(split(state, host, hosts))
        assert_same(side_by_side([take(host, 14) for host in again]), expected[11:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_may_read_several_parts_of_a_batch(batches, kind):
    example_fn, options = KINDS[kind]
    expected = take(batches(MIXTURE, example_fn, CONFIG, **options), 5)
    outer, inner = (batches(MIXTURE, example_fn, CONFIG, host=host, hosts=4, **options) for host in ((0, 3), (1, 2)))
    for whole, outside, inside in zip(expected, take(outer, 5), take(inner, 5), strict=True):
        for name, value in whole.items():
            np.testing.assert_array_equal(outside[name], np.concatenate([value[:2], value[6:]]))
            np.testing.assert_array_equal(inside[name], value[2:6])


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_that_of_the_batches_handed_out(batches, kind):
    example_fn, options = KINDS[kind]
    reference = batches(Ragged(21), example_fn, CONFIG, **options)
    for _ in range(12):  # 21 examples: several epochs, every place within one
        state = json.loads(json.dumps(reference.get_state()))
        expected = take(reference, 1)
        other = batches(Ragged(21), example_fn, CONFIG, **options)
        other.set_state(state)
        assert_same(take(other, 1), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_going_back_in_a_running_iterator(batches, kind):
    example_fn, options = KINDS[kind]
    iterator = batches(Ragged(50), example_fn, CONFIG, **options)
    take(iterator, 3)
    state = iterator.get_state()
    expected = take(iterator, 5)
    iterator.set_state(state)
    assert_same(take(iterator, 5), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_prefetch_do_not_change_content(batches, kind):
    example_fn, options = KINDS[kind]
    expected = take(batches(Ragged(40), example_fn, CONFIG, **options), 8)
    eager = CONFIG.replace(read_threads=5, prefetch=1)
    assert_same(take(batches(Ragged(40), example_fn, eager, **options), 8), expected)


def test_a_program_may_end_without_closing():
    code = """
import numpy as np
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import PipelineConfig, make_batches
source = [{"ids": np.arange(1 + i % 9)} for i in range(40)]
kept = [make_batches(source, lambda item, rng: item, PipelineConfig(batch=2), packing=PackingConfig(length=16))]
kept += [make_batches(source, lambda item, rng: {"n": len(item["ids"])}, PipelineConfig(batch=2))]
print([sorted(next(batches)) for batches in kept])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "segment_ids" in done.stdout


def test_each_example_once_per_epoch_in_a_new_order(batches):
    found = take(batches(Ragged(40), fixed, CONFIG), 15)
    epochs = np.concatenate([batch["example"] for batch in found]).reshape(3, 40)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()
    assert (epochs[0] != np.arange(40)).any()


def test_epochs_need_not_be_whole_batches(batches):
    found = np.concatenate([batch["example"] for batch in take(batches(Ragged(21), fixed, CONFIG), 21)])
    assert Counter(found.tolist()) == dict.fromkeys(range(21), 8)


def test_source_smaller_than_a_batch(batches):
    (batch,) = take(batches(Ragged(3), fixed, CONFIG), 1)
    assert batch["ids"].shape == (8, 1)
    assert min(Counter(batch["example"].tolist()).values()) >= 2


def test_random_numbers_belong_to_example_and_epoch(batches):
    found = take(batches(Ragged(8), fixed, CONFIG), 3)
    draws = [dict(zip(batch["example"].tolist(), batch["noise"][:, 0].tolist(), strict=True)) for batch in found]
    assert all(len(set(draw.values())) == 8 for draw in draws)
    assert all(draws[0][i] != draws[1][i] for i in range(8))
    bigger = take(batches(Ragged(8), fixed, CONFIG.replace(batch=4)), 2)  # another batch size, the same draws
    assert all(
        draws[0][i] == value
        for batch in bigger
        for i, value in zip(batch["example"].tolist(), batch["noise"][:, 0].tolist(), strict=True)
    )


def test_seeds_give_other_orders(batches):
    first, other = (take(batches(Ragged(40), fixed, CONFIG.replace(seed=seed)), 5) for seed in (3, 4))
    assert any((a["example"] != b["example"]).any() for a, b in zip(first, other, strict=True))


def test_mixture_has_the_shares_asked_for_and_names_examples_end_to_end(batches):
    found = take(batches(MIXTURE, fixed, CONFIG), 50)
    example = np.concatenate([batch["example"] for batch in found])
    ids = np.concatenate([batch["ids"][:, 0] for batch in found])
    np.testing.assert_array_equal(np.where(example < 30, example, example - 30 + 100), ids)
    assert abs(np.mean(example < 30) - 0.7) < 0.01


def test_sources_without_weights_count_by_example(batches):
    found = take(batches([Ragged(30), Ragged(10)], fixed, CONFIG), 50)
    assert abs(np.mean(np.concatenate([batch["example"] for batch in found]) < 30) - 0.75) < 0.01


def test_a_list_of_examples_is_one_source(batches):
    (batch,) = take(batches([{"x": np.arange(i, i + 2)} for i in range(8)], lambda item, rng: item, CONFIG), 1)
    np.testing.assert_array_equal(batch["x"][:, 0], batch["example"])


def test_buckets_hold_whole_examples_once_per_epoch(batches):
    found = take(batches(Ragged(39), whole, CONFIG, buckets=BucketConfig(lengths=(4, 8, 16))), 39)
    seen = Counter()
    for batch in found:
        length = batch["ids"].shape[1]
        shortest = {4: 1, 8: 5, 16: 9}[length]
        for ids, mask, positions, segments, i in zip(
            *(batch[name] for name in ("ids", "mask", "positions", "segment_ids", "example")), strict=True
        ):
            real = 1 + i % 13
            assert shortest <= real <= length
            np.testing.assert_array_equal(mask, np.arange(length) < real)
            np.testing.assert_array_equal(segments, mask)
            np.testing.assert_array_equal(ids, np.where(mask, i, 0))
            np.testing.assert_array_equal(positions, np.where(mask, np.arange(length), 0))
            seen[int(i)] += 1
    assert {batch["ids"].shape[1] for batch in found} == {4, 8, 16}
    assert sum(seen.values()) == 39 * 8
    assert len(seen) == 39
    assert max(seen.values()) - min(seen.values()) <= 2  # buckets keep their share, whatever their size


def test_known_lengths_spare_the_measuring_pass(batches):
    calls = []

    def counted(item, rng):
        calls.append(threading.current_thread().name)
        return item

    lengths = [np.asarray([1 + i % 13 for i in range(39)])]
    buckets = BucketConfig(lengths=(8, 16))
    found = take(batches(Ragged(39), counted, CONFIG, buckets=buckets, lengths=lengths), 6)
    assert threading.current_thread().name not in calls
    assert_same(take(batches(Ragged(39), whole, CONFIG, buckets=buckets), 6), found)
    with pytest.raises(UserError, match="38"):
        make_batches(Ragged(39), whole, CONFIG, buckets=buckets, lengths=[lengths[0][:-1]])
    with pytest.raises(UserError, match="reach to 8"):
        make_batches(Ragged(39), whole, CONFIG, buckets=BucketConfig(lengths=(4, 8)), lengths=lengths)


def test_state_of_another_order_is_refused(batches):
    state = batches(Ragged(40), fixed, CONFIG).get_state()
    for sources, config, name in [
        (Ragged(41), CONFIG, "examples"),
        (Ragged(40), CONFIG.replace(batch=4), "batch"),
        (Ragged(40), CONFIG.replace(seed=4), "seed"),
    ]:
        with pytest.raises(UserError, match=f"data state: {name}"):
            batches(sources, fixed, config).set_state(state)
    with pytest.raises(UserError, match="packing"):
        batches(Ragged(40), whole, CONFIG, packing=PackingConfig(length=32)).set_state(state)


def test_packed_state_of_one_host_of_two_is_refused(batches):
    packing = PackingConfig(length=32)
    half = batches(Ragged(40), whole, CONFIG, host=0, hosts=2, packing=packing).get_state()
    with pytest.raises(UserError, match="gather"):
        batches(Ragged(40), whole, CONFIG, packing=packing).set_state(half)


def test_hosts_at_different_batches_cannot_be_gathered(batches):
    states = [batches(Ragged(40), fixed, CONFIG, host=host, hosts=2).get_state() for host in range(2)]
    states[1]["next"] += 1
    with pytest.raises(UserError, match="same batch"):
        gather(states)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"host": 2, "hosts": 2}, "host"),
        ({"hosts": 3}, "divisible by 3, the parts that hosts read"),
        ({"hosts": 3, "packing": PackingConfig(length=32)}, "virtual_shards"),
        ({"packing": PackingConfig(length=32), "buckets": BucketConfig(lengths=(4,))}, "choose one"),
        ({"buckets": BucketConfig(lengths=(4, 8))}, "reach to 8"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        make_batches(Ragged(40), whole, CONFIG, **options)


@pytest.mark.parametrize(
    "sources, message", [(Ragged(0), "length"), ([], "at least one source"), ([(Ragged(3), 0.0)], "weight")]
)
def test_sources_that_do_not_fit(sources, message):
    with pytest.raises(UserError, match=message):
        make_batches(sources, fixed, CONFIG)


@pytest.mark.parametrize(
    "changes", [{"batch": 0}, {"seed": -1}, {"virtual_shards": 3}, {"read_threads": 0}, {"prefetch": 0}]
)
def test_config_checks_its_fields(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        CONFIG.replace(**changes)


def test_unequal_shapes_name_the_example(batches):
    with pytest.raises(UserError, match=r"example \d+ has shapes .* packed or put in buckets"):
        next(batches(Ragged(40), whole, CONFIG))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_names_the_example(batches, kind):
    _, options = KINDS[kind]

    def broken(item, rng):
        if item["ids"][0] == 17:
            raise RuntimeError("bad audio")
        return {"ids": item["ids"][:1]}

    lengths = [np.ones(40, np.int64)] if kind == "buckets" else None
    iterator = batches(Ragged(40), broken, CONFIG, lengths=lengths, **options)
    with pytest.raises(RuntimeError, match="bad audio") as error:
        take(iterator, 40)
    assert any("example 17 of source 0" in note for note in error.value.__notes__)
