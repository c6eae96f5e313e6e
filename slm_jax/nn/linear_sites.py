"""Where the `Linear` layers of a model are: what adapts or stores their kernels from outside asks this once.

A kernel `[*in, *out]` does not say where its inputs end, so that the layers are watched while a model is initialised.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core import meta

from slm_jax.core.errors import UserError, nearest, require
from slm_jax.nn.linear import Linear, Names


class LinearSite(NamedTuple):
    """The shapes and logical names of one layer's inputs and outputs, without the axis L of a stack."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    in_names: Names
    out_names: Names


Sites = dict[str, LinearSite]
"""Module path such as `blocks/layers/attention/query` -> the layer there."""


@contextlib.contextmanager
def recorded_sites() -> Iterator[Sites]:
    """The dict given fills with every `Linear` that is called inside."""
    found: Sites = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        if is_linear_call(context):
            found["/".join(context.module.path)] = _site(context.module, args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield found


def linear_sites(initialise: Callable[[jax.Array], Any]) -> Sites:
    """The layers of the model that `initialise(key) -> variables` initialises; nothing is computed.

    `initialise` must not be jitted: a program that was traced before calls no layer again.
    """
    with recorded_sites() as found:
        jax.eval_shape(lambda key: initialise(key), jax.random.key(0))  # a new function: JAX keeps traces of old ones
    return found


def matching_sites(sites: Sites, targets: str) -> Sites:
    """Those whose whole path `targets` matches; raises `UserError` when there is none."""
    pattern = compiled(targets)
    taken = {path: site for path, site in sites.items() if pattern.fullmatch(path)}
    rule = f"matches the whole path of no Linear layer{nearest(targets, sites)}; there are {sorted(sites)}"
    require(bool(taken), "targets", targets, rule)
    return taken


def compiled(targets: str) -> re.Pattern[str]:
    """The regular expression; raises `UserError` when it is none."""
    try:
        return re.compile(targets)
    except re.error as error:
        raise UserError(f"targets is {targets!r}: no regular expression ({error})") from None


def kernel_at(params: Any, path: str) -> Any:
    """The kernel (boxed or not) of the layer at `path`, the integers of one that is kept in int8."""
    node = params
    for part in (*path.split("/"), "kernel"):
        require(isinstance(node, dict) and part in node, "path", path, f"the parameters have no kernel there ({part})")
        node = node[part]
    return node["q"] if isinstance(node, dict) else node


def with_kernel(params: dict[str, Any], path: str, kernel: Any) -> dict[str, Any]:
    """A copy of nested dicts with the kernel of the layer at `path` changed."""
    name, _, rest = path.partition("/")
    below = with_kernel(params[name], rest, kernel) if rest else {**params[name], "kernel": kernel}
    return {**params, name: below}


def leading_axes(kernel: Any, site: LinearSite) -> tuple[tuple[int, ...], Names]:
    """Sizes and names of a kernel's axes before its inputs: that of the layers in a stack, or none."""
    shape = meta.unbox(kernel).shape
    count = len(shape) - len(site.inputs) - len(site.outputs)
    fits = count >= 0 and tuple(shape[count:]) == site.inputs + site.outputs
    require(fits, "kernel shape", tuple(shape), f"must end in {site.inputs + site.outputs}")
    names = kernel.names if isinstance(kernel, meta.AxisMetadata) else ("layers",) * count  # type: ignore[attr-defined]
    return tuple(shape[:count]), tuple(names[:count])


def is_linear_call(context: Any) -> bool:
    """Is this intercepted call that of a `Linear` layer on its input?"""
    return isinstance(context.module, Linear) and context.method_name == "__call__"


def _site(layer: Linear, x: Any) -> LinearSite:
    features = (layer.features,) if isinstance(layer.features, int) else tuple(layer.features)
    names = layer.out_names or (None,) * len(features)
    return LinearSite(tuple(x.shape[-len(layer.in_names) :]), features, tuple(layer.in_names), tuple(names))
