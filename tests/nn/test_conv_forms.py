"""The forms of a convolution against XLA's own, outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.conv_forms import conv_lax, conv_transpose, conv_transpose_lax, conv_unfold


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
