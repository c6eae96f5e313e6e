"""Batches of several kinds in one run: their pattern, resuming in the middle, one host and two."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.data.interleaved import Interleaved, next_kind
from slm_jax.data.packing import PackingConfig
from slm_jax.data.pipeline import PipelineConfig, make_batches
from slm_jax.parallel.hosts import union

TEXTS = [{"ids": np.full(1 + i % 5, i, np.int32)} for i in range(23)]
SPEECH = [{"samples": np.full(6, i, np.float32)} for i in range(11)]
WEIGHTS = {"text": 1.0, "speech": 2.5}


@pytest.fixture
def kinds():
    """Packed text in 4 rows and noisy speech in 2, closed after the test."""
    made = []

    def make(host=0, hosts=1, **weights):
        share = {"host": host, "hosts": hosts}
        text = make_batches(
            TEXTS, lambda item, rng: item, PipelineConfig(batch=4), packing=PackingConfig(length=8), **share
        )
        noisy = lambda item, rng: {"samples": item["samples"] + rng.random(6, np.float32)}  # noqa: E731
        speech = make_batches(SPEECH, noisy, PipelineConfig(batch=2, seed=5), **share)
        weights = WEIGHTS | weights
        made.append(Interleaved({"text": (text, weights["text"]), "speech": (speech, weights["speech"])}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def taken(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_kinds_come_in_their_shares_and_keep_their_shapes(kinds):
    batches = taken(kinds(), 21)
    shapes = Counter((name, value.shape) for batch in batches for name, value in batch.items())
    assert shapes["samples", (2, 6)] == 15
    assert shapes["ids", (4, 8)] == shapes["segment_ids", (4, 8)] == 6
    assert all(("ids" in batch) != ("samples" in batch) for batch in batches)
    for batch in batches:
        if "samples" in batch:  # counted after those of the text
            np.testing.assert_array_equal(batch["samples"][:, 0].astype(int), batch["example"] - len(TEXTS))
        else:
            np.testing.assert_array_equal(batch["ids"][:, 0], batch["example"])


def test_no_kind_gets_ahead():
    counts, weights = [0, 0, 0], [0.2, 0.5, 0.3]
    for number in range(1, 200):
        counts[next_kind(counts, weights)] += 1
        assert all(abs(count - weight * number) < 1 for count, weight in zip(counts, weights, strict=True))


@pytest.mark.parametrize("place", [0, 1, 4, 9])
def test_a_run_goes_on_to_the_bit_from_anywhere(kinds, place):
    whole = taken(kinds(), 14)
    first = kinds()
    taken(first, place)
    state = json.loads(json.dumps(first.get_state()))
    again = kinds()
    again.set_state(state)
    assert_equal(taken(again, 14 - place), whole[place:])


def test_two_hosts_read_what_one_reads_and_go_on_as_one(kinds):
    whole, hosts = taken(kinds(), 12), [kinds(host, 2) for host in range(2)]
    parts = [taken(host, 7) for host in hosts]

    def together(parts):
        return [{n: np.concatenate([part[n] for part in both]) for n in both[0]} for both in zip(*parts, strict=True)]

    assert_equal(together(parts), whole[:7])
    alone = kinds()
    alone.set_state(json.loads(json.dumps(union(*(host.get_state() for host in hosts)))))
    assert_equal(taken(alone, 5), whole[7:])


def test_other_weights_and_other_data_are_refused(kinds):
    state = kinds().get_state()
    with pytest.raises(UserError, match=r"data state: weights is .*'speech': 2.5"):
        kinds(speech=1.0).set_state(state)
    state["parts"]["speech"]["order"]["seed"] = 6
    with pytest.raises(UserError, match="data state: seed"):
        kinds().set_state(state)
    with pytest.raises(UserError, match=r"weight of part 'text' is 0"):
        kinds(text=0.0)
    with pytest.raises(UserError, match="at least one pipeline"):
        Interleaved({})
