"""The one stack of layers: scanned or unrolled over the same stacked parameters, with or without remat.

Scan compiles one layer whatever the depth; unrolled code runs faster on CPU and in decoding. Both read the tree
`layers/...` with a leading axis L, so a checkpoint fits both. Inside a decoding loop XLA does not hoist the slices
`kernel[i]` out of the loop: call `unstack` on the parameters before it.

Layers may follow a pattern of blocks, such as recurrent, recurrent, attention. What is scanned then is a group of one
block of each: `groups/layers/block_0/...` has the groups as its leading axis, and the layers after the last whole group
lie in `rest/block_0/...`, without one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from slm_jax.core.errors import require
from slm_jax.nn.pattern import Group
from slm_jax.parallel.placement import activations, platform

LIFTED = ("params", "lora")
AUTO_UNROLL_CPU, AUTO_UNROLL = 12, 4
"""Depths up to which `unroll="auto"` unrolls: compile time grows with depth, and only on CPU is scan much slower."""


class StackOutput(NamedTuple):
    """What a stack returns: the last layer's output, the new caches, and every layer's output when asked for."""

    values: Float[Array, "B T D"]
    caches: tuple | None
    hidden: Float[Array, "L B T D"] | None


class Stack(nn.Module):
    """`layers` copies of the module that `block()` makes, one after the other.

    With a tuple of factories, layer i is made by number i modulo their count. A block is called as
    `block(x, cache, *shared, **static)` and returns `(x, cache)`; `shared` are arrays that every layer reads (masks,
    rotations), `static` Python values. Sub-module name and parameter path: `layers`. `caches` is a tuple with one entry
    per layer, in order, or None; those of one kind of block are alike. Layers after the first `depth` are not run; in
    a pattern `depth` ends with a group.
    """

    block: Callable[..., nn.Module] | tuple[Callable[..., nn.Module], ...]
    layers: int
    unroll: str | bool = "auto"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        caches: tuple | None = None,
        shared: tuple = (),
        *,
        collect: bool = False,
        depth: int | None = None,
        **static: Any,
    ) -> StackOutput:
        depth = self.layers if depth is None else depth
        require(0 <= depth <= self.layers, "depth", depth, f"must lie within the {self.layers} layers")
        pattern = self.block if isinstance(self.block, tuple) else (self.block,)
        if len(pattern) > 1:
            return self._patterned(pattern, x, caches, shared, depth, collect, static)
        block = pattern[0](name="layers")

        def body(block: nn.Module, x: jax.Array, cache: Any, shared: tuple) -> tuple:
            y, cache = block(activations(x), cache, *shared, **static)
            return y, (cache, y if collect else None)

        if self.is_initializing():  # one tree: parameters are always born through the scan
            return self._scanned(body, block, x, caches, shared)
        unroll = resolve_unroll(self.unroll, self.layers) or depth < self.layers or self._is_unstacked()
        if unroll:
            return self._unrolled(body, block, x, caches, shared, depth)
        return self._scanned(body, block, x, caches, shared)

    def _patterned(
        self, pattern: tuple, x: jax.Array, caches: Any, shared: tuple, depth: int, collect: bool, static: dict
    ) -> StackOutput:
        """A stack of groups, then what is left of the pattern."""
        size = len(pattern)
        groups, ends = self.layers // size, depth % size == 0 or depth == self.layers
        require(ends, "depth", depth, f"must end with a group of {size} or with the last of the {self.layers} layers")
        by_layer, static = (None,) * self.layers if caches is None else caches, {**static, "keep": collect}
        parts: tuple = ()
        if groups:
            unroll = resolve_unroll(self.unroll, self.layers)
            stack = Stack(partial(Group, pattern, self.remat), groups, unroll, name="groups")
            grouped = tuple(by_layer[i * size : (i + 1) * size] for i in range(groups))
            x, parts, _ = stack(x, grouped, shared, depth=min(depth // size, groups), **static)
        if depth == self.layers and self.layers % size:
            rest = Group(pattern[: self.layers % size], self.remat, name="rest")
            x, part = rest(x, by_layer[groups * size :], *shared, **static)
            parts = (*parts, part)
        new_caches = tuple(cache for part in parts for cache in part[0])
        hidden = jnp.concatenate([part[1] for part in parts]) if collect and parts else None
        return StackOutput(x, None if caches is None else new_caches, hidden)

    def _scanned(self, body: Callable, block: nn.Module, x: jax.Array, caches: Any, shared: tuple) -> StackOutput:
        if self.remat:
            body = nn.remat(body, prevent_cse=False)
        scanned = nn.scan(
            body,
            variable_axes=dict.fromkeys(LIFTED, 0),
            split_rngs={"params": True, "dropout": True},
            length=self.layers,
            in_axes=(0, nn.broadcast),
            out_axes=0,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        stacked = None if caches is None else jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches)
        x, (stacked, hidden) = scanned(block, x, stacked, shared)
        if caches is not None:
            caches = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(self.layers))
        return StackOutput(x, caches, hidden)

    def _unrolled(
        self, body: Callable, block: nn.Module, x: jax.Array, caches: Any, shared: tuple, depth: int
    ) -> StackOutput:
        new_caches, hidden = [], []
        for i in range(depth):
            lifted = nn.map_variables(body, list(LIFTED), trans_in_fn=_picker(i), mutable=False)
            layer = nn.remat(lifted) if self.remat else lifted
            x, (cache, y) = layer(block, x, None if caches is None else caches[i], shared)
            new_caches.append(cache)
            hidden.append(y)
        collected = jnp.stack(hidden) if hidden and hidden[0] is not None else None
        return StackOutput(x, None if caches is None else tuple(new_caches), collected)

    def _is_unstacked(self) -> bool:
        return "0" in self.variables.get("params", {}).get("layers", {})


def resolve_unroll(unroll: str | bool, layers: int) -> bool:
    """Whether a stack of `layers` is unrolled under the setting True, False or "auto"."""
    if unroll != "auto":
        require(isinstance(unroll, bool), "unroll", unroll, 'must be True, False or "auto"')
        return bool(unroll)
    return layers <= (AUTO_UNROLL_CPU if platform() == "cpu" else AUTO_UNROLL)


def unstack(params: Any) -> Any:
    """The same parameters with every stack's tree `layers/...` cut into `layers/0/...`, `layers/1/...`.

    A stack given such a tree runs unrolled. Kernels by step (`nn.step_linear`) are cut apart too. Only `Stack` may call
    a sub-module `layers`, only `StepLinear` a parameter `steps`.
    """
    if not isinstance(params, dict):
        return params
    return {name: _cut(name, tree) for name, tree in params.items()}


def unstack_on_cpu(params: Any, mesh: Mesh) -> Any:
    """What nobody trains, in the form that is quickest: on one CPU device `unstack`, else as it is.

    A scan on a CPU copies each layer's weights out of the stack in every pass, 8 % of a LoRA step on SmolLM2-135M.
    """
    return unstack(params) if mesh.size == 1 and mesh.devices.flat[0].platform == "cpu" else params


def _cut(name: str, tree: Any) -> Any:
    if name == "layers" and "0" not in tree:
        return {place: unstack(layer) for place, layer in _sliced(tree).items()}
    if name == "steps" and not isinstance(tree, dict):
        return _sliced(tree)
    return unstack(tree)


def _sliced(tree: Any) -> dict[str, Any]:
    count = jax.tree.leaves(tree)[0].shape[0]
    return {str(i): jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)}


def _picker(i: int) -> Callable:
    def pick(variables: Any) -> Any:
        return {
            name: tree[str(i)] if str(i) in tree else jax.tree.map(lambda leaf: leaf[i], tree)
            for name, tree in variables.items()
        }

    return pick
