"""Convolutions over time on `[B, T, D]`: plain and transposed, grouped, dilated, weight-normalised.

Kernels are stored as `[K, I, O]` (taps, inputs of one group, outputs), tap order as in PyTorch.
The forms that also run step by step are in `nn.streaming_conv`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require
from slm_jax.nn.conv_forms import conv_lax, conv_transpose, conv_unfold
from slm_jax.nn.dtypes import at_least_float32

Padding = str | int
KERNEL_AXES = ("kernel", "conv_in", "conv_out")


class Conv1d(nn.Module):
    """Convolution over time, equal to `torch.nn.Conv1d`.

    `padding`: "same" (frames out = ceil(T / stride), the odd zero on the right as in PyTorch), "valid", "causal"
    (output t sees inputs up to the last of its `stride` frames; ceil(T / stride) out), or the zeros on each side.
    `weight_norm`: None, or the PyTorch dimension whose entries keep a norm of their own: 0 for outputs, 2 for taps; or
    "spectral", the kernel divided by its largest singular value.
    `form`: "lax", or "unfold", which is many times faster in the gradient of grouped convolutions on CPU.
    """

    features: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    padding: Padding = "same"
    use_bias: bool = True
    weight_norm: int | str | None = None
    form: str = "lax"
    kernel_init: Callable = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bias_init: Callable = nn.initializers.zeros
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T2 O"]:
        """Frames where `mask` is False are read as zeros; `frames_out` and `mask_out` tell which outputs are real."""
        require(x.shape[-1] % self.groups == 0, "groups", self.groups, f"must divide the {x.shape[-1]} inputs")
        shape = (self.kernel, x.shape[-1] // self.groups, self.features)
        kernel, bias = kernel_and_bias(self, shape, torch_axes=(2, 1, 0))
        x = zero_padded(x, mask).astype(self.dtype)
        pads = pad_widths(x.shape[1], self.kernel, self.stride, self.dilation, self.padding)
        convolve = {"lax": conv_lax, "unfold": conv_unfold}[self.form]
        y = convolve(x, kernel.astype(self.dtype), pads, self.stride, self.dilation, self.groups)
        return y if bias is None else y + bias.astype(self.dtype)

    def frames_out(self, frames: Any) -> Any:
        """Output frames for `frames` input frames; an int or an array of ints."""
        return conv_length(frames, self.kernel, self.stride, self.dilation, self.padding)

    def mask_out(self, mask: Bool[Array, "B T"]) -> Bool[Array, "B T2"]:
        """The mask that belongs to the output of a right-padded input."""
        return length_mask(self.frames_out(mask.sum(-1)), self.frames_out(mask.shape[1]))


class ConvTranspose1d(nn.Module):
    """Transposed convolution over time, equal to `torch.nn.ConvTranspose1d`: `(T - 1) stride - 2 padding + K` frames.

    `output_padding` zeros-in frames are added at the right end. `weight_norm`: None or 0 (per input, PyTorch's axis).
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    groups: int = 1
    use_bias: bool = True
    weight_norm: int | None = None
    kernel_init: Callable = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bias_init: Callable = nn.initializers.zeros
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None) -> Float[Array, "B T2 O"]:
        require(x.shape[-1] % self.groups == 0, "groups", self.groups, f"must divide the {x.shape[-1]} inputs")
        require(self.groups == 1 or self.weight_norm is None, "weight_norm", self.weight_norm, "needs groups = 1")
        shape = (self.kernel, x.shape[-1] // self.groups, self.features)
        kernel, bias = kernel_and_bias(self, shape, torch_axes=(1, 2, 0))
        x = zero_padded(x, mask).astype(self.dtype)
        edge = self.kernel - 1 - self.padding
        y = conv_transpose(x, kernel.astype(self.dtype), self.stride, (edge, edge + self.output_padding), self.groups)
        return y if bias is None else y + bias.astype(self.dtype)

    def frames_out(self, frames: Any) -> Any:
        """Output frames for `frames` input frames; an int or an array of ints."""
        return (frames - 1) * self.stride - 2 * self.padding + self.kernel + self.output_padding


def kernel_and_bias(
    module: Any, shape: tuple[int, int, int], torch_axes: tuple[int, int, int]
) -> tuple[jax.Array, jax.Array | None]:
    """The parameters of a convolution module, the kernel with its weight normalisation applied.

    `torch_axes[d]` is the axis of the stored kernel that PyTorch calls dimension d.
    """
    init, dtype = nn.with_logical_partitioning(module.kernel_init, KERNEL_AXES), module.param_dtype
    if module.weight_norm in (None, "spectral"):
        kernel = module.param("kernel", init, shape, dtype)
        kernel = kernel / largest_singular_value(kernel) if module.weight_norm == "spectral" else kernel
    else:
        direction = module.param("weight_v", init, shape, dtype)
        kept = torch_axes[module.weight_norm]
        reduced = tuple(axis for axis in range(3) if axis != kept)
        names = tuple(name if axis == kept else None for axis, name in enumerate(KERNEL_AXES))
        length = nn.with_logical_partitioning(lambda key: norm_over(direction, reduced).astype(dtype), names)
        kernel = weight_normed(module.param("weight_g", length), direction)
    if not module.use_bias:
        return kernel, None
    bias_init = nn.with_logical_partitioning(module.bias_init, ("conv_out",))
    return kernel, module.param("bias", bias_init, (module.features,), dtype)


def norm_over(kernel: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The Euclidean norm over `axes`, kept as axes of size 1, in float32 or wider."""
    return jnp.sqrt(jnp.sum(jnp.square(kernel.astype(at_least_float32(kernel.dtype))), axes, keepdims=True))


def weight_normed(length: jax.Array, direction: jax.Array) -> jax.Array:
    """The kernel `g v / |v|`, the norm taken over the axes where `length` has size 1."""
    axes = tuple(axis for axis, size in enumerate(length.shape) if size == 1)
    return length * direction / norm_over(direction, axes)


def largest_singular_value(kernel: Float[Array, "K I O"], iterations: int = 20) -> Float[Array, ""]:
    """The largest singular value of the kernel as a map from taps and inputs to outputs, by power iteration.

    The iteration starts afresh from a fixed vector instead of keeping one as state (Miyato et al. 2018 do one
    iteration per step): nothing to carry, the same value whenever it is asked, at the cost of a few small products.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
    fixed = jax.lax.stop_gradient(matrix)

    def improve(_: Any, right: jax.Array) -> jax.Array:
        right = fixed.T @ (fixed @ right)
        return right / jnp.maximum(jnp.linalg.norm(right), 1e-12)

    start = jnp.cos(jnp.arange(matrix.shape[1], dtype=jnp.float32) ** 2)
    right = jax.lax.fori_loop(0, iterations, improve, start / jnp.linalg.norm(start))
    left = fixed @ right
    return jnp.maximum((left / jnp.maximum(jnp.linalg.norm(left), 1e-12)) @ matrix @ right, 1e-12)


def fold_weight_norm(params: Any) -> Any:
    """The parameter tree with every (`weight_g`, `weight_v`) replaced by the `kernel` they stand for.

    For inference: build the same module with `weight_norm=None`. Takes unboxed trees.
    """
    if not isinstance(params, Mapping):
        return params
    folded = {name: fold_weight_norm(value) for name, value in params.items()}
    if "weight_g" in folded and "weight_v" in folded:
        folded["kernel"] = weight_normed(folded.pop("weight_g"), folded.pop("weight_v"))
    return folded


def zero_padded(x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T D"]:
    """`x` with zeros where `mask` is False. Uses a select, so that not even a NaN in the padding comes through."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)


def pad_widths(frames: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after `frames` frames."""
    reach = dilation * (kernel - 1)
    if padding == "valid":
        return 0, 0
    if padding == "same":
        return reach // 2, reach - reach // 2
    if padding == "causal":
        require(
            reach + 1 >= stride, "stride", stride, f"a causal convolution that reaches {reach + 1} frames skips some"
        )
        return reach + 1 - stride, -frames % stride
    require(
        isinstance(padding, int) and padding >= 0, "padding", padding, "is same, valid, causal or a number of zeros"
    )
    return int(padding), int(padding)


def conv_length(frames: Any, kernel: int, stride: int, dilation: int, padding: Padding) -> Any:
    """Output frames of a convolution; `frames` is an int or an array of ints."""
    if padding in ("same", "causal"):
        return -(-frames // stride)
    zeros = 0 if padding == "valid" else 2 * int(padding)
    return (frames + zeros - dilation * (kernel - 1) - 1) // stride + 1


def length_mask(lengths: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
    """True for the first `lengths` of `frames` frames."""
    return jnp.arange(frames) < lengths[:, None]
