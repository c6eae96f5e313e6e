"""Endless training batches: seeded, resumable, and the same whatever the number of hosts.

Three ways to a fixed shape:
- `example_fn` returns fixed shapes (it crops or pads): the batch is a stack of examples;
- `BucketConfig`: whole examples, each padded to the length of its bucket (`data.buckets`);
- `PackingConfig`: several examples in one row (`data.packing`).

Without packing a batch is a function of its number: each host loads its own rows of batch t, and the state is t.
Packing takes as many examples as fit, so it runs over fixed virtual shards with one small state each.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from slm_jax.core.config import Config, content_hash
from slm_jax.core.errors import UserError, require
from slm_jax.data.buckets import BucketConfig, bucket_members, measure, pad_to_bucket
from slm_jax.data.order import Key, Mixture, Source, example_rng, mixed, one_order
from slm_jax.data.packing import PackingConfig, packed_iterator

Sources = Source | Sequence[Source] | Sequence[tuple[Source, float]]
ExampleFn = Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]
ExampleFns = ExampleFn | Sequence[ExampleFn]


class PipelineConfig(Config):
    """How batches are drawn. `batch` counts rows over all hosts.

    `virtual_shards` is used by packing only: it must divide `batch` and be divisible by every number of parts in which
    hosts may ever read a batch (see `parallel.sharding.row_parts`: at most the number of devices); None takes `batch`
    itself. `read_threads` and `prefetch` (batches read ahead) change speed, never content.
    """

    batch: int
    seed: int = 0
    virtual_shards: int | None = None
    read_threads: int = 2
    prefetch: int = 4

    def __post_init__(self) -> None:
        require(self.batch > 0, "batch", self.batch, "at least one row")
        require(0 <= self.seed < 2**32, "seed", self.seed, "between 0 and 2**32 - 1")
        shards = self.shards
        require(shards > 0 and self.batch % shards == 0, "virtual_shards", shards, f"must divide batch {self.batch}")
        require(self.read_threads > 0, "read_threads", self.read_threads, "at least one thread")
        require(self.prefetch > 0, "prefetch", self.prefetch, "at least one batch")

    @property
    def shards(self) -> int:
        """Virtual shards in use."""
        return self.batch if self.virtual_shards is None else self.virtual_shards


class Batches:
    """An endless iterator over the rows of one host (`core.contracts.BatchIterator`).

    `get_state` belongs to the batches handed out so far, never to those read ahead. `set_state` takes the state of
    any number of hosts once `gather` has merged it, and refuses the state of another order.
    """

    def __init__(self, iterator: grain.DatasetIterator, order: dict[str, Any], shards: Sequence[int] | None) -> None:
        self._open = [iterator]
        self._order = order
        self._shards = shards
        # Grain closes its threads from `__del__`, which complains when the interpreter is half gone: be earlier
        self._finalizer = weakref.finalize(self, _close, self._open)

    @property
    def examples(self) -> int:
        """How many there are in the sources, all hosts' together."""
        return sum(self._order["examples"])

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """Small JSON: `{"order": ..., "next": t}`, or with packing `{"order": ..., "shards": {"0": ...}}`."""
        state = self._iterator.get_state()
        if self._shards is None:
            return {"order": self._order, "next": state["next_index"]}
        return {"order": self._order, "shards": state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where `state` was taken; raises `UserError` where it is that of other data or settings."""
        for name in sorted(self._order.keys() | state.get("order", {}).keys()):
            saved, now = state.get("order", {}).get(name), self._order.get(name)
            require(saved == now, f"data state: {name}", saved, f"this run has {now!r}; resume with the same data")
        if self._shards is None:
            self._iterator.set_state({"next_index": state["next"]})
            return
        missing = [number for number in self._shards if str(number) not in state["shards"]]
        require(not missing, "data state: missing virtual shards", missing, "gather the states of all hosts first")
        self._iterator.set_state({str(number): state["shards"][str(number)] for number in self._shards})

    def close(self) -> None:
        """Stop the reading threads; nothing can be read afterwards."""
        self._finalizer()

    @property
    def _iterator(self) -> grain.DatasetIterator:
        if not self._open:
            raise ValueError("these batches were closed")
        return self._open[0]


def make_batches(
    sources: Sources,
    example_fn: ExampleFns,
    config: PipelineConfig,
    *,
    host: int | Sequence[int] = 0,
    hosts: int = 1,
    packing: PackingConfig | None = None,
    buckets: BucketConfig | None = None,
    lengths: Sequence[np.ndarray] | None = None,
) -> Batches:
    """Batches of `sources`: one source, several (every example counts alike), or (source, weight) pairs.

    `example_fn(item, rng)` makes one example from an item of a source; `rng` depends on seed, epoch and position
    alone. A sequence of such functions has one for each source: kinds of example, which must have equal arrays.
    `example` `[B]` int64 is added: the position in the sources laid end to end (packed: of the first example).
    Without packing each example comes exactly once per epoch of its source (and bucket). A batch is cut into `hosts`
    equal parts, and `host` says which of them (one, or several in ascending order) are read here. `lengths`: one
    array per source with the length of every example as `example_fn` returns it; buckets need it and, when it is not
    given, run `example_fn` over everything once. Raises `UserError` for settings that do not fit each other or the
    data.
    """
    require(not (packing and buckets), "packing and buckets", (packing, buckets), "choose one")
    host = (host,) if isinstance(host, int) else tuple(host)
    require(bool(host) and 0 <= min(host) <= max(host) < hosts, "host", host, f"between 0 and {hosts - 1}")
    mixture = Mixture(sources)
    load = _loader(mixture, example_fn, config.seed)
    order = {"examples": mixture.sizes, "weights": mixture.weights, "batch": config.batch, "seed": config.seed}
    if packing:
        order |= {"packing": packing.to_json(), "virtual_shards": config.shards}
        shards = _parts(config.shards, host, hosts, "virtual_shards")
        each = config.batch // config.shards
        iterator = packed_iterator(mixture, load, packing, shards, config.shards, each, config.seed, config.prefetch)
        return Batches(iterator, order, shards)
    if buckets:
        lengths = measure(mixture, load, buckets) if lengths is None else lengths
        order |= {"buckets": buckets.to_json(), "lengths": content_hash([np.asarray(one).tolist() for one in lengths])}
    rows = _parts(config.batch, host, hosts, "batch")
    keys = _batch_keys(mixture, config, buckets, lengths)
    batches = keys.map(lambda keys: _make_batch([keys[row] for row in rows], mixture, load, buckets))
    # Grain's buffer is counted in elements, which are whole batches here
    options = grain.ReadOptions(num_threads=config.read_threads, prefetch_buffer_size=config.prefetch)
    return Batches(iter(batches.to_iter_dataset(options)), order, None)


def gather(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state out of those of all hosts, which must have handed out equally many batches."""
    first = states[0]
    if "shards" not in first:
        places = {state["next"] for state in states}
        require(len(places) == 1, "data states", sorted(places), "all hosts must be at the same batch")
        return first
    return {**first, "shards": {name: shard for state in states for name, shard in state["shards"].items()}}


def split(state: dict[str, Any], host: int, hosts: int) -> dict[str, Any]:
    """The part of a gathered state that one host needs; `set_state` takes the whole as well."""
    if "shards" not in state:
        return state
    mine = _parts(len(state["shards"]), (host,), hosts, "virtual_shards")
    return {**state, "shards": {str(number): state["shards"][str(number)] for number in mine}}


def _close(iterators: list[grain.DatasetIterator]) -> None:
    """Close and let go: Grain closes once more when an iterator is deleted."""
    while iterators:
        iterators.pop().close()


def _parts(count: int, chosen: Sequence[int], parts: int, name: str) -> list[int]:
    """The places of `range(count)` that lie in the chosen ones of its `parts` equal parts."""
    require(count % parts == 0, name, count, f"must be divisible by {parts}, the parts that hosts read")
    size = count // parts
    return [place for part in chosen for place in range(part * size, (part + 1) * size)]


def _loader(mixture: Mixture, example_fn: ExampleFns, seed: int) -> Callable[[Key], dict[str, np.ndarray]]:
    many = len(mixture.sources)
    makers = [example_fn] * many if callable(example_fn) else list(example_fn)
    require(len(makers) == many, "example functions", len(makers), f"one for each of {many} sources, or one for all")

    def load(key: Key) -> dict[str, np.ndarray]:
        try:
            return makers[key.source](mixture.sources[key.source][key.position], example_rng(seed, key))
        except Exception as error:
            error.add_note(f"while making example {key.position} of source {key.source} in epoch {key.epoch}")
            raise

    return load


def _batch_keys(
    mixture: Mixture, config: PipelineConfig, buckets: BucketConfig | None, lengths: Sequence[np.ndarray] | None
) -> grain.MapDataset:
    """Endless lists of the keys of whole batches; every list from one bucket, buckets by their share of examples."""
    everything = [[np.arange(size) for size in mixture.sizes]]
    bucket_orders, bucket_weights = [], []
    for bucket, members in enumerate(bucket_members(mixture, buckets, lengths or ()) if buckets else everything):
        used = [source for source, positions in enumerate(members) if len(positions)]
        if used:
            orders = [one_order(members[source], source, (config.seed, bucket)).repeat() for source in used]
            weights = [mixture.weights[source] * len(members[source]) / mixture.sizes[source] for source in used]
            bucket_orders.append(mixed(orders, weights).batch(config.batch, batch_fn=list))
            bucket_weights.append(sum(weights))
    return mixed(bucket_orders, bucket_weights)


def _make_batch(
    keys: list[Key], mixture: Mixture, load: Callable, buckets: BucketConfig | None
) -> dict[str, np.ndarray]:
    examples = [load(key) for key in keys]
    if buckets:
        examples = pad_to_bucket(examples, keys, buckets)
    try:
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    except (ValueError, KeyError) as error:
        raise _unequal(examples, keys) from error
    return batch | {"example": np.asarray([mixture.example(key) for key in keys], np.int64)}


def _unequal(examples: list[dict[str, np.ndarray]], keys: list[Key]) -> UserError:
    shapes = [{name: np.shape(value) for name, value in example.items()} for example in examples]
    other = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
    return UserError(
        f"example {keys[other].position} has shapes {shapes[other]}, example {keys[0].position} has {shapes[0]}: "
        "examples must have equal shapes, or be packed or put in buckets"
    )
