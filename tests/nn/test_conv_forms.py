"""The forms of a convolution against XLA's own, outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.conv_forms import conv_2d, conv_lax, conv_transpose, conv_transpose_lax, conv_unfold


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def close(form, plain, *inputs: jax.Array) -> None:
    """Outputs and gradients of a non-linear function of them agree."""
    np.testing.assert_allclose(form(*inputs), plain(*inputs), atol=1e-5)
    gradients = [jax.grad(lambda *x, f=f: jnp.sin(f(*x)).sum(), argnums=(0, 1))(*inputs) for f in (form, plain)]
    for got, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(("taps", "stride", "dilation"), [(5, 1, 1), (4, 1, 3), (31, 1, 1), (3, 2, 1)])
def test_depthwise_equals_xla(taps: int, stride: int, dilation: int) -> None:
    x, kernel, pads = draw(0, 2, 17, 6), draw(1, taps, 1, 6), (taps // 2 * dilation,) * 2
    close(*(lambda x, k, f=f: f(x, k, pads, stride, dilation, 6) for f in (conv_unfold, conv_lax)), x, kernel)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("taps", "stride", "padding", "added"), [(11, 5, 3, 0), (8, 4, 2, 0), (4, 2, 0, 1), (3, 4, 0, 3), (7, 1, 6, 0)]
)
def test_transposed_equals_xla(taps: int, stride: int, padding: int, added: int, groups: int) -> None:
    edge = taps - 1 - padding
    x, kernel, pads = draw(0, 2, 9, 4), draw(1, taps, 4 // groups, 6), (edge, edge + added)
    close(*(lambda x, k, f=f: f(x, k, stride, pads, groups) for f in (conv_transpose, conv_transpose_lax)), x, kernel)


@pytest.mark.parametrize(("taps", "stride", "pads"), [(4, 2, (2, 0)), (10, 5, (5, 0)), (2, 2, (0, 0)), (6, 3, (1, 2))])
@pytest.mark.parametrize("frames", [12, 17])
def test_a_stride_equals_xla(taps: int, stride: int, pads: tuple[int, int], frames: int) -> None:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (stride,), [pads], dimension_numbers=("NWC", "WIO", "NWC"))

    x, kernel = draw(0, 2, frames, 3), draw(1, taps, 3, 4)
    close(lambda x, k: conv_lax(x, k, pads, stride, 1, 1), plain, x, kernel)


def test_what_is_shorter_than_a_strided_kernel_has_no_frames() -> None:
    assert conv_lax(draw(0, 2, 3, 3), draw(1, 4, 3, 4), (0, 0), 2, 1, 1).shape == (2, 0, 4)


@pytest.mark.parametrize("stride", [(1, 2), (1, 3), (2, 2), (1, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_two_axes_equal_xla(stride: tuple[int, int], dilation: tuple[int, int]) -> None:
    pads = (dilation[0], 4)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        spread = {"rhs_dilation": dilation, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, kernel, stride, [(pad, pad) for pad in pads], **spread)

    x, kernel = draw(0, 2, 7, 13, 3), draw(1, 3, 9, 3, 4)
    close(lambda x, k: conv_2d(x, k, pads, stride, dilation), plain, x, kernel)


@pytest.mark.parametrize(("taps", "dilation", "pads"), [(7, 1, (6, 0)), (3, 4, (4, 4)), (1, 1, (0, 0)), (5, 2, (0, 3))])
def test_a_single_channel_equals_xla(taps: int, dilation: int, pads: tuple[int, int]) -> None:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        spread = {"rhs_dilation": (dilation,), "dimension_numbers": ("NWC", "WIO", "NWC")}
        return jax.lax.conv_general_dilated(x, kernel, (1,), [pads], **spread)

    x, kernel = draw(0, 2, 17, 6), draw(1, taps, 6, 1)
    close(lambda x, k: conv_lax(x, k, pads, 1, dilation, 1), plain, x, kernel)


def test_a_single_channel_in_bfloat16_is_added_up_in_float32() -> None:
    x, kernel = draw(0, 1, 64, 32).astype(jnp.bfloat16), draw(1, 7, 32, 1).astype(jnp.bfloat16)
    wide = conv_lax(x.astype(jnp.float32), kernel.astype(jnp.float32), (3, 3), 1, 1, 1)
    found = conv_lax(x, kernel, (3, 3), 1, 1, 1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wide, rtol=8e-3, atol=1e-5)


def test_a_single_channel_in_float64_stays_in_float64() -> None:
    x, kernel = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in ((0, (1, 9, 4)), (1, (3, 4, 1))))
    with jax.enable_x64(True):
        found = np.asarray(conv_lax(jnp.asarray(x), jnp.asarray(kernel), (0, 0), 1, 1, 1))
    wanted = sum(x[:, tap : tap + 7] @ kernel[tap] for tap in range(3))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_two_axes_to_a_single_channel_equal_xla() -> None:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        spread = {"rhs_dilation": (2, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(2, 2), (1, 1)], **spread)

    x, kernel = draw(0, 2, 7, 13, 3), draw(1, 3, 3, 3, 1)
    close(lambda x, k: conv_2d(x, k, (2, 1), (1, 1), (2, 1)), plain, x, kernel)
