"""An analytic model of a step's memory on one device, from the traced program: no compiler is asked.

What lives at the same time is followed through the program. Results of products, convolutions, loops, kernels and
reductions take room; what works element by element is taken to be fused into its readers and to cost nothing, and what
it read lives on until the last of them. A parameter, its gradient and its averages take their share under the rules
of the mesh; what depends on the batch is spread over the shares of rows.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.core.trees import flatten_by_path, partition
from slm_jax.parallel.sharding import row_shards
from slm_jax.workbench.jaxpr_calls import Listing, Step, written_out
from slm_jax.workbench.plan_program import Program

HELD = {
    "dot_general",
    "conv_general_dilated",
    "scan",
    "while",
    "cond",
    "shard_map",
    "pallas_call",
    "gather",
    "scatter",
    "scatter-add",
    "sort",
    "cumsum",
    "fft",
    "concatenate",
    "dynamic_update_slice",
    "random_bits",
    "threefry2x32",
    "reduce_sum",
    "reduce_max",
    "argmax",
    "reduce_window_sum",
}
"""Primitives whose results take room of their own."""
RESHAPING = {"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "convert_element_type"}
PRODUCTS = ("dot_general", "conv_general_dilated")
LARGEST = 6


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device. `working`: gradients, activations and what else lives during a step.

    `largest`: the largest buffers at the fullest moment, as (bytes, what).
    """

    parameters: int
    optimizer: int
    ema: int
    rest: int
    working: int
    largest: tuple[tuple[int, str], ...] = ()

    @property
    def fixed(self) -> int:
        """What is there before the step begins."""
        return self.parameters + self.optimizer + self.ema + self.rest

    @property
    def peak(self) -> int:
        """What the program needs."""
        return self.fixed + self.working


def held_bytes(tree: Any) -> int:
    """Bytes of a tree of shapes on one device, by their shardings."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def predict(program: Program, jaxpr: Any) -> Memory:
    """What the model says of a program, whose traced step is `jaxpr`."""
    state = program.state
    sizes = Sizes(program)
    live = Live(sizes)
    others = {name: tree for name, tree in state.variables.items() if name != "params"}
    listing = written_out(jaxpr)
    tainted = live.inputs_of_batch(listing, program)
    working, largest = live.peak(listing, tainted)
    return Memory(
        parameters=held_bytes(state.params),
        optimizer=held_bytes(state.opt),
        ema=held_bytes(state.ema),
        rest=held_bytes((others, program.frozen, program.batch)),
        working=working + sizes.casts + moved_before(program),
        largest=tuple(sorted(largest, reverse=True)[:LARGEST]),
    )


def moved_before(program: Program) -> int:
    """Bytes of the new weights of all players but the last, which lie beside the old ones until all have moved.

    The players after them read the new ones, and the guard against NaN may want the old ones back.
    """
    players = program.outline.players[:-1]
    return sum(held_bytes(partition(program.state.variables, player.owns)[0]) for player in players)


class Sizes:
    """Bytes of a value on one device, by its shape and by whether it depends on the batch."""

    def __init__(self, program: Program) -> None:
        mesh = program.mesh
        self.rows = row_shards(mesh) * mesh.shape["sequence"]
        self.shares: dict[tuple[int, ...], int] = {}
        self.stacked: set[tuple[int, ...]] = set()
        self.casts = 0
        for path, leaf in flatten_by_path((program.state.params, program.frozen)).items():
            part = leaf.sharding.shard_shape(leaf.shape)
            share = math.prod(leaf.shape) // max(math.prod(part), 1)
            if leaf.ndim > 1:
                self.shares[_key(leaf.shape)] = share
            if "layers" in path.split("/") and leaf.ndim > 2:
                self.shares[_key(leaf.shape[1:])] = share
                self.stacked.add(_key(leaf.shape))
                # float32 matrices are turned to bfloat16 once, before the loop over layers
                self.casts += math.prod(part) * 2 if leaf.dtype.itemsize > 2 else 0
        self.inner = mesh.shape["tensor"]

    def held(self, shape: Any, of_batch: bool, local: bool) -> int:
        """Bytes that stay."""
        whole = _bytes(shape)
        if local:
            return whole
        share = self.shares.get(_key(shape.shape))
        if share is not None:
            return whole // share
        return whole // self.rows if of_batch else whole

    def passing(self, step: Step) -> int:
        """Bytes that weights and their gradients take while a product outside of a loop needs them whole.

        Weights are gathered in bfloat16, the next ones while these are used; a gradient is summed over the devices
        before each keeps its part.
        """
        gathered = sum(2 * 2 * math.prod(shape.shape) for shape in step.given if self.is_spread(shape))
        return gathered + sum(_bytes(shape) for shape in step.shapes if self.is_spread(shape))

    def is_spread(self, shape: Any) -> bool:
        """A weight, or its gradient, of which each device keeps a part."""
        return self.shares.get(_key(shape.shape), 1) > 1

    def is_gathered(self, shape: Any) -> bool:
        """Such a weight of one layer; those of all layers stay in parts."""
        return self.is_spread(shape) and _key(shape.shape) not in self.stacked


class Live:
    """Follows values through a program."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def inputs_of_batch(self, listing: Listing, program: Program) -> set[int]:
        """Numbers of the inputs that hold the batch."""
        leaves = jax.tree.leaves((program.state, program.batch, program.frozen))
        batch = {id(leaf) for leaf in jax.tree.leaves(program.batch)}
        own = listing.inputs[len(listing.inputs) - len(leaves) :]
        return {number for number, leaf in zip(own, leaves, strict=True) if id(leaf) in batch}

    def peak(
        self, listing: Listing, of_batch: set[int], local: bool = False, turn: bool = False
    ) -> tuple[int, list[tuple[int, str]]]:
        """(bytes at the fullest moment beyond the inputs, what lies there then).

        In a turn of a loop over layers (`turn`) weights that lie in parts are gathered in bfloat16 before their first
        use and stay until their last, and their gradients stay whole until the end, where all are scattered at once.
        """
        of_batch = spread(listing, of_batch)
        turn = turn and not local
        gathered = self._gathered(listing) if turn else {}
        sizes, roots = self._held(listing, of_batch, local, gathered)
        last = last_uses(listing, roots)
        if turn:
            whole = self._gradients(listing)
            sizes |= whole
            last |= dict.fromkeys(whole, len(listing.steps))
        labels = {
            number: f"{_named(shape)} {step.label or step.name}"
            for step in listing.steps
            for number, shape in zip(step.outputs, step.shapes, strict=True)
        }
        labels |= dict.fromkeys(gathered, "a layer's weights, gathered")
        now: dict[int, int] = {}
        best, there = 0, []
        for place, step in enumerate(listing.steps):
            inside, within = self._inside(step, of_batch, local)
            passing = self.sizes.passing(step) if step.name in PRODUCTS and not local and not turn else 0
            now |= {number: gathered[number] for number in step.inputs if number in gathered}
            now |= {number: sizes[number] for number in step.outputs if number in sizes}
            total = sum(now.values()) + inside + passing
            if total > best:
                best, there = total, within + [(size, labels[number]) for number, size in now.items()]
            now = {number: size for number, size in now.items() if last.get(number, place) > place}
        return best, there

    def _gathered(self, listing: Listing) -> dict[int, int]:
        """Bytes of the inputs that are weights in parts, whole and in bfloat16."""
        inputs, found = set(listing.inputs), {}
        for step in listing.steps:
            for number, shape in zip(step.inputs, step.given, strict=True):
                if number in inputs and self.sizes.is_gathered(shape):
                    found[number] = 2 * math.prod(shape.shape)
        return found

    def _gradients(self, listing: Listing) -> dict[int, int]:
        """Bytes of the products that are gradients of such weights."""
        return {
            number: _bytes(shape)
            for step in listing.steps
            if step.name in PRODUCTS
            for number, shape in zip(step.outputs, step.shapes, strict=True)
            if self.sizes.is_spread(shape)
        }

    def _held(
        self, listing: Listing, of_batch: set[int], local: bool, inputs: Iterable[int] = ()
    ) -> tuple[dict[int, int], dict[int, frozenset[int]]]:
        """Bytes of the values that take room, and for each value those (of `inputs`, too) whose bytes it is made of."""
        sizes: dict[int, int] = {}
        roots: dict[int, frozenset[int]] = {number: frozenset((number,)) for number in inputs}
        for step in listing.steps:
            read = frozenset().union(*(roots.get(number, frozenset()) for number in step.inputs if number is not None))
            for number, shape in zip(step.outputs, step.shapes, strict=True):
                if step.name in HELD:
                    size = self.sizes.held(shape, number in of_batch, local)
                    narrow = step.name == "scan" and str(shape.dtype) == "float32" and feeds_products(listing, number)
                    if step.name == "random_bits":  # what lives on is the mask that they are compared into
                        size //= shape.dtype.itemsize
                    sizes[number] = size // 2 if narrow else size
                    roots[number] = frozenset((number,))
                else:
                    roots[number] = read
        return sizes, roots

    def _inside(self, step: Step, of_batch: set[int], local: bool) -> tuple[int, list[tuple[int, str]]]:
        """The fullest moment inside a loop, a branch or a part that runs on each device for itself."""
        if step.name == "scan":
            inner = [step.params["jaxpr"]]
        elif step.name == "while":
            inner = [step.params["body_jaxpr"]]
        elif step.name == "cond":
            inner = list(step.params["branches"])
        elif step.name == "shard_map":
            inner, local = [step.params["jaxpr"]], True
        else:
            return 0, []
        found = []
        for jaxpr in inner:
            listing = written_out(jaxpr)
            given = step.inputs[len(step.inputs) - len(listing.inputs) :] if step.name != "cond" else step.inputs[1:]
            tainted = {mine for mine, number in zip(listing.inputs, given, strict=False) if number in of_batch}
            carried = self._carried(step, listing, tainted)
            found.append(self.peak(listing, carried, local, turn=step.name == "scan"))
        return max(found, key=lambda pair: pair[0], default=(0, []))

    @staticmethod
    def _carried(step: Step, listing: Listing, tainted: set[int]) -> set[int]:
        """With what a loop hands from turn to turn added, until nothing changes."""
        if step.name != "scan":
            return tainted
        first, count = step.params["num_consts"], step.params["num_carry"]
        while True:
            after = spread(listing, tainted)
            more = {listing.inputs[first + i] for i in range(count) if listing.outputs[i] in after} - tainted
            if not more:
                return tainted
            tainted = tainted | more


def feeds_products(listing: Listing, number: int) -> bool:
    """Is a value read by products alone? They read bfloat16 on a TPU, which is then what is kept of it."""
    readers = [step for step in listing.steps if number in step.inputs]
    return bool(readers) and all(_in_product(step, number) for step in readers)


def _in_product(step: Step, number: int) -> bool:
    if step.name in PRODUCTS:
        return step.params.get("precision") is None
    if step.name != "scan":
        return False
    body = written_out(step.params["jaxpr"])
    names = [mine for mine, given in zip(body.inputs, step.inputs, strict=True) if given == number]
    return all(reaches_products(body, name) for name in names)


def reaches_products(listing: Listing, number: int) -> bool:
    """`feeds_products`, also after a change of shape."""
    readers = [step for step in listing.steps if number in step.inputs]
    through = [step for step in readers if step.name in RESHAPING]
    others = [step for step in readers if step.name not in RESHAPING]
    return (
        bool(readers)
        and all(_in_product(step, number) for step in others)
        and all(reaches_products(listing, out) for step in through for out in step.outputs)
    )


def spread(listing: Listing, of_batch: set[int]) -> set[int]:
    """`of_batch` and every value that is made of one of them, or drawn at random: what is dropped has rows too."""
    found = set(of_batch)
    for step in listing.steps:
        if step.name == "random_bits" or any(number in found for number in step.inputs):
            found.update(step.outputs)
    return found


def last_uses(listing: Listing, roots: dict[int, frozenset[int]]) -> dict[int, int]:
    """The step after which the room of a value is free, for those that are used at all."""
    last: dict[int, int] = {}
    for place, step in enumerate(listing.steps):
        for number in step.inputs:
            for root in roots.get(number, ()) if number is not None else ():
                last[root] = place
    return last


def _key(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size != 1))


def _bytes(shape: Any) -> int:
    try:
        return math.prod(shape.shape) * np.dtype(shape.dtype).itemsize
    except TypeError:  # a random key
        return math.prod(shape.shape) * 8


def _named(shape: Any) -> str:
    return shape.str_short() if hasattr(shape, "str_short") else str(shape)


def together(largest: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Equal buffers as one entry."""
    count = Counter(what for _, what in largest)
    each = {what: size for size, what in largest}
    return [(size * count[what], f"{count[what]} x {what}" if count[what] > 1 else what) for what, size in each.items()]
