"""Convolutions against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.nn.conv import Conv1d, ConvTranspose1d

torch = pytest.importorskip("torch")
TOLERANCE = 1e-5


def compare(torch_layer, layer, to_ours, width):
    x = np.random.default_rng(0).normal(size=(2, 14, width)).astype(np.float32)
    with torch.no_grad():
        expected = torch_layer(torch.from_numpy(x).transpose(1, 2)).transpose(1, 2).numpy()
    params = {name: jnp.asarray(to_ours(p.detach().numpy())) for name, p in named(torch_layer)}
    got = layer.apply({"params": params}, jnp.asarray(x))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, unboxed(layer, x))
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def named(torch_layer):
    ours = {
        "weight": "kernel",
        "bias": "bias",
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    return [(ours[name], p) for name, p in torch_layer.named_parameters()]


def unboxed(layer, x):
    import flax.linen as nn

    return nn.meta.unbox(layer.init(jax.random.key(0), jnp.asarray(x)))["params"]


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "padding", "norm"),
    [
        (3, 1, 1, 1, "same", None),
        (4, 1, 1, 1, "same", 0),
        (4, 1, 2, 3, "same", 2),
        (5, 2, 1, 2, 3, 0),
        (4, 3, 2, 6, 0, None),
    ],
)
def test_conv1d(kernel, stride, dilation, groups, padding, norm):
    torch.manual_seed(0)
    reference = torch.nn.Conv1d(6, 12, kernel, stride, padding, dilation, groups)
    if norm is not None:
        reference = torch.nn.utils.parametrizations.weight_norm(reference, dim=norm)
        reference.parametrizations.weight.original0.data.mul_(1.7)
    for form in ("lax", "unfold"):
        ours = Conv1d(
            12, kernel, stride=stride, dilation=dilation, groups=groups, padding=padding, weight_norm=norm, form=form
        )
        compare(reference, ours, lambda w: w.transpose(2, 1, 0) if w.ndim == 3 else w, 6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "norm"), [(4, 2, 1, 0, 0), (11, 5, 3, 0, None), (3, 2, 0, 1, 0)]
)
def test_conv_transpose1d(kernel, stride, padding, extra, norm):
    torch.manual_seed(0)
    reference = torch.nn.ConvTranspose1d(6, 4, kernel, stride, padding, extra)
    if norm is not None:
        reference = torch.nn.utils.parametrizations.weight_norm(reference, dim=norm)
        reference.parametrizations.weight.original0.data.mul_(1.7)
    ours = ConvTranspose1d(4, kernel, stride=stride, padding=padding, output_padding=extra, weight_norm=norm)
    compare(reference, ours, lambda w: w.transpose(2, 0, 1) if w.ndim == 3 else w, 6)


def test_grouped_conv_transpose1d():
    torch.manual_seed(0)
    reference, groups = torch.nn.ConvTranspose1d(6, 4, 4, 2, 1, groups=2), 2

    def to_ours(w):
        if w.ndim == 1:
            return w
        inputs, outputs, taps = (
            w.shape
        )  # outputs are those of one group; the groups stand one after the other in inputs
        split = w.reshape(groups, inputs // groups, outputs, taps).transpose(3, 1, 0, 2)
        return split.reshape(taps, inputs // groups, groups * outputs)

    compare(reference, ConvTranspose1d(4, 4, stride=2, padding=1, groups=groups), to_ours, 6)
