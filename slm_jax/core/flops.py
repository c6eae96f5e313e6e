"""Floating-point operations of a traced program, loops counted by their length.

Counted are products of matrices, convolutions and attention kernels, two operations for each multiply-add; what works
element by element is left out, as is usual where a rate is compared with a device's peak. A program is counted as it
is written: masked attention scores count, padding of convolutions does not.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jax.extend.core import jaxprs_in_params

REMATTED = "rematted_computation"
"""The name scope that JAX gives to what `jax.checkpoint` computes a second time."""


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of one run of a program, over all devices together.

    `recomputed`: the part of `total` that rematerialisation (of layers, or of scores inside an attention kernel's
    gradient) computes for the second time. `open_loops`: loops whose length is only known when they run; their body
    is counted once.
    """

    total: int = 0
    recomputed: int = 0
    open_loops: int = 0

    @property
    def model(self) -> int:
        """Operations that the mathematics needs: the numerator of MFU."""
        return self.total - self.recomputed

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.total + other.total, self.recomputed + other.recomputed, self.open_loops + other.open_loops)

    def times(self, count: int) -> "Flops":
        """Of `count` runs."""
        return Flops(self.total * count, self.recomputed * count, self.open_loops)

    def again(self) -> "Flops":
        """The same operations, all of them for the second time."""
        return dataclasses.replace(self, recomputed=self.total)


def count_flops(jaxpr: Any) -> Flops:
    """Operations of a (closed) jaxpr, such as `jax.jit(f).trace(*args).jaxpr`.

    A scan counts as often as it turns, of a conditional's branches the largest, a `shard_map` once per shard, and a
    kernel by its cost estimate or, without one, by its body times its grid.
    """
    total = Flops()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        counted = RULES.get(equation.primitive.name, _inside)(equation)
        total += counted.again() if REMATTED in str(equation.source_info.name_stack) else counted
    return total


def _inside(equation: Any) -> Flops:
    """Of everything an equation calls."""
    return sum((count_flops(jaxpr) for jaxpr in jaxprs_in_params(equation.params)), Flops())


def _dot(equation: Any) -> Flops:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return Flops(2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted))


def _convolution(equation: Any) -> Flops:
    """Products with real inputs: neither padding nor the holes of a transposed convolution count."""
    params, (left, right), out = equation.params, equation.invars, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    inputs, kernels = left.aval.shape, right.aval.shape
    pairs = 1
    for axis, (left_axis, right_axis, out_axis) in enumerate(
        zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    ):
        pairs *= products_along(
            inputs[left_axis],
            kernels[right_axis],
            out[out_axis],
            params["window_strides"][axis],
            params["padding"][axis][0],
            params["lhs_dilation"][axis],
            params["rhs_dilation"][axis],
        )
    rows, channels = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return Flops(2 * rows * channels * kernels[numbers.rhs_spec[1]] * pairs)


@lru_cache(maxsize=4096)
def products_along(
    size: int, kernel: int, out: int, stride: int, padding: int, input_dilation: int, kernel_dilation: int
) -> int:
    """Pairs of output position and kernel tap along one axis that meet a real input."""
    last = (size - 1) * input_dilation
    starts = np.arange(out, dtype=np.int64) * stride - padding
    if kernel <= out:
        return sum(_real(starts + tap * kernel_dilation, last, input_dilation) for tap in range(kernel))
    taps = np.arange(kernel, dtype=np.int64) * kernel_dilation
    return sum(_real(taps + int(start), last, input_dilation) for start in starts)


def _real(places: np.ndarray, last: int, dilation: int) -> int:
    return int(np.count_nonzero((places >= 0) & (places <= last) & (places % dilation == 0)))


def _scan(equation: Any) -> Flops:
    return count_flops(equation.params["jaxpr"]).times(equation.params["length"])


def _while(equation: Any) -> Flops:
    once = _inside(equation)
    return dataclasses.replace(once, open_loops=once.open_loops + (once.total > 0))


def _cond(equation: Any) -> Flops:
    return max((count_flops(branch) for branch in equation.params["branches"]), key=lambda flops: flops.total)


def _shard_map(equation: Any) -> Flops:
    sizes = dict(equation.params["mesh"].shape)
    axes = equation.params.get("newly_manual_axes", equation.params.get("manual_axes", sizes.keys()))
    return count_flops(equation.params["jaxpr"]).times(math.prod(sizes[axis] for axis in axes))


def _pallas(equation: Any) -> Flops:
    """A kernel's own estimate where it makes one; the gradients of flash attention compute their scores again."""
    params = equation.params
    body = params["jaxpr"]
    estimate = params.get("cost_estimate")
    if estimate is not None:
        whole = Flops(int(estimate.flops))
    else:
        grid = params["grid_mapping"].grid
        whole = count_flops(body).times(math.prod(size for size in grid if isinstance(size, int)))
    name = str(params.get("name") or params.get("name_and_src_info", ""))
    if any(part in name for part in ("dq", "dkv")):
        redone, products = REDONE_PRODUCTS.get(_products(body), (0, 1))
        return dataclasses.replace(whole, recomputed=whole.total * redone // products)
    return whole


REDONE_PRODUCTS = {3: (2, 3), 4: (1, 4), 5: (1, 5)}
"""Products of matrices in a gradient kernel of attention -> the share that is done again. Four are needed in all (dV,
dP, dQ, dK); a kernel for dQ has three, one for dK and dV four, one for all of them five."""


def _products(jaxpr: Any) -> int:
    """Products of matrices on the longest way through a kernel's body."""
    count = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            count += 1
        inner: Sequence[Any] = list(jaxprs_in_params(equation.params))
        if equation.primitive.name == "cond":
            count += max(map(_products, equation.params["branches"]), default=0)
        else:
            count += sum(map(_products, inner))
    return count


def _fused_attention(products: int, redone: int) -> Callable[[Any], Flops]:
    """cuDNN's attention: products of `[B, T, H, C]` or `[B, H, T, C]` queries with S keys."""

    def rule(equation: Any) -> Flops:
        query, key = equation.invars[0].aval.shape, equation.invars[1].aval.shape
        heads_first = equation.params.get("layout", 0) == 1
        each = 2 * math.prod(query) * key[2 if heads_first else 1]
        return Flops(products * each, redone * each)

    return rule


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


RULES: dict[str, Callable[[Any], Flops]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
    "pallas_call": _pallas,
    "dot_product_attention_fwd_wrapper": _fused_attention(2, 0),
    "dot_product_attention_bwd_wrapper": _fused_attention(5, 1),
}
"""Primitive -> how its operations are counted; any other counts what it calls."""
