"""The forms in which convolutions are written for XLA: what they compute is the same, how fast they are is not.

On XLA's CPU back end a plain convolution is fastest as a one-dimensional one, its gradient by the kernel twice so, a
transposed one as a plain one that makes all outputs of a frame at once, a strided one, whose gradients otherwise go
through zeros between the outputs, as a plain one over neighbours side by side, one to a single channel as a product.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.nn.dtypes import at_least_float32
from slm_jax.parallel.placement import by_rows


def conv_lax(
    x: Float[Array, "B T D"],
    kernel: Float[Array, "K I O"],
    pads: tuple[int, int],
    stride: int,
    dilation: int,
    groups: int,
) -> Float[Array, "B T2 O"]:
    """Convolution as one XLA operation, or as a product where a single channel comes out."""
    if stride == groups == kernel.shape[2] == 1:
        return to_one_channel(x, kernel, [pads], (dilation,))
    if stride > 1 and groups == dilation == 1 and kernel.shape[0] % stride == 0:
        (x, kernel), stride, pads = side_by_side(x, kernel, stride, pads), 1, (0, 0)
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride,),
        padding=(pads,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )
    return _applied(convolve, x, kernel, groups)


def conv_2d(
    x: Float[Array, "B T F D"],
    kernel: Float[Array, "K L I O"],
    padding: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Float[Array, "B T2 F2 O"]:
    """Convolution over two axes; `padding` zeros on both sides of each.

    With a stride of 2 over the second its gradient by the input is four times as fast so (17 against 78 ms for
    93 x 513 of 32 channels, on one core), the others as they were.
    """
    pads = [(pad, pad) for pad in padding]
    if stride == (1, 1) and kernel.shape[3] == 1:
        return to_one_channel(x, kernel, pads, dilation)
    if stride[1] > 1 and dilation[1] == 1:
        (x, kernel), stride, pads[1] = side_by_side(x, kernel, stride[1], pads[1]), (stride[0], 1), (0, 0)
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=numbers)


def to_one_channel(
    x: Float[Array, "B *T D"],
    kernel: Float[Array, "*K D 1"],
    pads: Sequence[tuple[int, int]],
    dilation: tuple[int, ...],
) -> Float[Array, "B *T2 1"]:
    """A convolution to a single channel: what every tap makes of every frame, in one product, added where it belongs.

    For 160,000 frames of 96 channels and 7 taps 7 ms on one core, where XLA's convolution takes 26; the gradient by the
    kernel 7 and 64.
    """
    taps = kernel.shape[:-2]
    by_tap = jnp.matmul(x, kernel.reshape(-1, kernel.shape[-2]).T, preferred_element_type=at_least_float32(x.dtype))
    by_tap = jnp.pad(by_tap, [(0, 0), *pads, (0, 0)])
    reach = [spread * (count - 1) for spread, count in zip(dilation, taps, strict=True)]
    lengths = [have - lost for have, lost in zip(by_tap.shape[1:-1], reach, strict=True)]
    moved = []
    for tap, place in enumerate(np.ndindex(*taps)):
        firsts = [spread * at for spread, at in zip(dilation, place, strict=True)]
        window = tuple(slice(first, first + length) for first, length in zip(firsts, lengths, strict=True))
        moved.append(by_tap[(slice(None), *window, tap)])
    return reduce(jnp.add, moved)[..., None].astype(x.dtype)


def side_by_side(
    x: Float[Array, "*B T D"], kernel: Float[Array, "*K L I O"], stride: int, pads: tuple[int, int]
) -> tuple[Float[Array, "*B T2 sD"], Float[Array, "*K L2 sI O"]]:
    """The input with `stride` neighbours as channels, and the kernel that finds the same with a stride of 1.

    Nothing is moved but at the ends, where both are padded; of a kernel whose length is no multiple of the stride some
    taps are zero.
    """
    taps, inputs, outputs = kernel.shape[-3:]
    reach = -(-taps // stride)
    frames = max(0, (x.shape[-2] + sum(pads) - taps) // stride + 1)
    count = max(0, frames - 1 + reach)
    behind = max(0, count * stride - x.shape[-2] - pads[0])
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (pads[0], behind), (0, 0)])[..., : count * stride, :]
    kernel = jnp.pad(kernel, [*[(0, 0)] * (kernel.ndim - 3), (0, reach * stride - taps), (0, 0), (0, 0)])
    x = x.reshape(*x.shape[:-2], count, stride * x.shape[-1])
    return x, kernel.reshape(*kernel.shape[:-3], reach, stride * inputs, outputs)


def _applied(convolve: Callable[[Array, Array], Array], x: Array, kernel: Array, groups: int) -> Array:
    return convolve(x, kernel) if groups == 1 else by_rows(convolve, x, kernel)


def conv_unfold(
    x: Float[Array, "B T D"],
    kernel: Float[Array, "K I O"],
    pads: tuple[int, int],
    stride: int,
    dilation: int,
    groups: int,
) -> Float[Array, "B T2 O"]:
    """The same as shifted copies of the input: one product over all taps, or a sum of scaled copies when depthwise."""
    taps, inputs, outputs = kernel.shape
    x = jnp.pad(x, ((0, 0), pads, (0, 0)))
    if inputs == 1 and outputs == groups and stride == 1:
        return depthwise(dilation, x, kernel[:, 0])
    frames = (x.shape[1] - dilation * (taps - 1) - 1) // stride + 1
    last = (frames - 1) * stride + 1
    copies = [x[:, tap * dilation : tap * dilation + last : stride] for tap in range(taps)]
    if inputs == 1 and outputs == groups:
        return reduce(jnp.add, (copy * kernel[tap, 0] for tap, copy in enumerate(copies)))
    patches = jnp.stack(copies, axis=2).reshape(x.shape[0], frames, taps, groups, inputs)
    split = kernel.reshape(taps, inputs, groups, outputs // groups)
    return jnp.einsum("btkgi,kigo->btgo", patches, split).reshape(x.shape[0], frames, outputs)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def depthwise(dilation: int, x: Float[Array, "B T D"], kernel: Float[Array, "K D"]) -> Float[Array, "B T2 D"]:
    """Every channel filtered by its own taps: a sum of scaled copies. T2 = T - dilation (K - 1).

    Its gradient is written as such a sum too: what XLA makes of it by itself, a sum of zero-padded copies, takes nine
    times as long on CPU (74 against 8 ms for 4 x 199 x 192 with 31 taps), which was a fifth of the tiny encoder's step.
    """
    taps = kernel.shape[0]
    return reduce(jnp.add, (copy * kernel[tap] for tap, copy in enumerate(_shifted(x, taps, dilation))))


def _depthwise_forward(dilation: int, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise(dilation, x, kernel), (x, kernel)


def _depthwise_backward(dilation: int, saved: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    taps = kernel.shape[0]
    reach = dilation * (taps - 1)
    dx = depthwise(dilation, jnp.pad(dy, ((0, 0), (reach, reach), (0, 0))), kernel[::-1])
    return dx, jnp.stack([(copy * dy).sum((0, 1)) for copy in _shifted(x, taps, dilation)])


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _shifted(x: jax.Array, taps: int, dilation: int) -> list[jax.Array]:
    frames = x.shape[1] - dilation * (taps - 1)
    return [x[:, tap * dilation : tap * dilation + frames] for tap in range(taps)]


def conv_transpose(
    x: Float[Array, "B T D"], kernel: Float[Array, "K I O"], stride: int, pads: tuple[int, int], groups: int
) -> Float[Array, "B T2 O"]:
    """Transposed convolution; `pads` are the zeros on each side of the input with `stride - 1` zeros between frames.

    Output n = stride m + r is a sum over x[m - j] kernel[stride j + r]: a plain convolution that makes all r of a
    frame at once. On CPU that is up to twice as fast as XLA's own form, and its gradient four to eight times.
    """
    if groups > 1:
        return conv_transpose_lax(x, kernel, stride, pads, groups)
    taps, inputs, outputs = kernel.shape
    reach = -(-taps // stride)
    kernel = jnp.pad(kernel, ((0, reach * stride - taps), (0, 0), (0, 0))).reshape(reach, stride, inputs, outputs)
    kernel = kernel[::-1].transpose(0, 2, 1, 3).reshape(reach, inputs, stride * outputs)
    edges = jnp.pad(x, ((0, 0), (reach - 1, reach - 1), (0, 0)))  # as `pads` of the convolution its gradient is slow
    y = conv_lax(edges, kernel, (0, 0), 1, 1, 1).reshape(x.shape[0], -1, outputs)
    first, length = taps - 1 - pads[0], (x.shape[1] - 1) * stride + 2 - taps + sum(pads)
    y = jnp.pad(y, ((0, 0), (0, max(0, first + length - y.shape[1])), (0, 0)))
    return y[:, first : first + length]


def conv_transpose_lax(
    x: Float[Array, "B T D"], kernel: Float[Array, "K I O"], stride: int, pads: tuple[int, int], groups: int
) -> Float[Array, "B T2 O"]:
    """Transposed convolution: zeros between the input frames, then a convolution with the taps reversed."""
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=((0, 0), pads),
        lhs_dilation=(1, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return _applied(convolve, x[:, None], kernel[None, ::-1], groups)[:, 0]
