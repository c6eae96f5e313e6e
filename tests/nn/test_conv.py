"""Convolutions: length arithmetic, masks, the two forms, weight norm, and step by step = whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from slm_jax.nn.conv import Conv1d, ConvTranspose1d, fold_weight_norm
from slm_jax.nn.streaming_conv import CausalConv1d, CausalConvTranspose1d
from tests.contracts.checks import random_params


def unboxed(variables):
    import flax.linen as nn

    return nn.meta.unbox(variables)


def drawn(layer, x):
    """Variables of a layer that reads `x`, all of them normal, biases included."""
    return {"params": random_params(layer, jax.random.key(1), x, scale=1.0)}


def signal(batch, frames, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((batch, frames, width)), jnp.float32)


@pytest.mark.parametrize("padding", ["same", "valid", "causal", 2])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (4, 2, 1), (3, 1, 2)])
def test_declared_length_is_measured_length_and_padding_is_silent(padding, kernel, stride, dilation):
    conv = Conv1d(4, kernel, stride=stride, dilation=dilation, padding=padding)
    x = signal(1, 13, 3)
    params = drawn(conv, x)
    alone = conv.apply(params, x[:, :10])
    assert alone.shape[1] == conv.frames_out(10)
    mask = jnp.arange(13)[None] < 10
    padded = conv.apply(params, x.at[:, 10:].set(jnp.nan), mask)
    real = conv.mask_out(mask)
    assert real.shape[1] == padded.shape[1]
    assert int(real.sum()) == alone.shape[1]
    np.testing.assert_allclose(padded[:, : alone.shape[1]], alone, atol=1e-5)


@pytest.mark.parametrize(("width", "groups", "features"), [(6, 1, 4), (6, 3, 9), (6, 6, 6)])
def test_unfolded_form_equals_lax_in_values_and_gradients(width, groups, features):
    x = signal(2, 11, width)
    forms = [Conv1d(features, 4, stride=2, groups=groups, form=form) for form in ("lax", "unfold")]
    params = drawn(forms[0], x)
    results = [jax.value_and_grad(lambda p, f=f: jnp.sum(f.apply(p, x) ** 3))(params) for f in forms]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-3), *results)


def test_folding_weight_norm_leaves_the_output_and_removes_the_pair():
    x = signal(1, 9, 4)
    for dim in (0, 2):
        conv = Conv1d(6, 3, weight_norm=dim)
        params = drawn(conv, x)
        folded = fold_weight_norm(params)
        assert set(folded["params"]) == {"kernel", "bias"}
        plain = Conv1d(6, 3).apply(folded, x)
        np.testing.assert_allclose(plain, conv.apply(params, x), atol=1e-5)
    transposed = ConvTranspose1d(6, 4, stride=2, padding=1, weight_norm=0)
    params = drawn(transposed, x)
    plain = ConvTranspose1d(6, 4, stride=2, padding=1).apply(fold_weight_norm(params), x)
    np.testing.assert_allclose(plain, transposed.apply(params, x), atol=1e-5)
    assert plain.shape[1] == transposed.frames_out(9)


def test_weight_norm_starts_at_the_plain_kernel():
    x = signal(1, 9, 4)
    params = unboxed(Conv1d(6, 3, weight_norm=0).init(jax.random.key(0), x))
    np.testing.assert_allclose(fold_weight_norm(params)["params"]["kernel"], params["params"]["weight_v"], atol=1e-6)


def steppable_layers():
    return {
        "plain": CausalConv1d(3, 5, 4),
        "dilated": CausalConv1d(3, 5, 3, dilation=2),
        "strided": CausalConv1d(3, 5, 5, stride=2, weight_norm=0),
        "up": CausalConvTranspose1d(3, 5, 5, upsample=2),
        "up without overlap": CausalConvTranspose1d(3, 5, 2, upsample=2),
    }


@pytest.mark.parametrize("name", list(steppable_layers()))
def test_step_by_step_equals_whole_with_rows_that_pause(name):
    layer = steppable_layers()[name]
    x, block = signal(2, 8, 3), layer.stride
    full = Frames(x, jnp.ones((2, 8), bool))
    params = drawn(layer, full)
    whole = layer.apply(params, full)
    state, pieces, fed = layer.initial_state(2, 8, jnp.float32), ([], []), [0, 0]
    step = jax.jit(lambda f, s: layer.apply(params, f, s, method=layer.step))
    for turn in range(12):  # row 1 sits out every third turn, with garbage in its place
        on = np.array([True, turn % 3 != 1]) & (np.array(fed) < 8)
        values = np.full((2, block, 3), 7.0, np.float32)
        for row in np.flatnonzero(on):
            values[row] = x[row, fed[row] : fed[row] + block]
            fed[row] += block
        out, state = step(Frames(jnp.asarray(values), jnp.repeat(jnp.asarray(on)[:, None], block, 1)), state)
        for row in np.flatnonzero(on):
            pieces[row].append(out.values[row])
    assert fed == [8, 8]
    for row in range(2):
        np.testing.assert_allclose(np.concatenate(pieces[row]), whole.values[row], atol=1e-5)


@pytest.mark.parametrize("name", ["strided", "up"])
def test_several_frames_in_one_step_with_a_row_that_ends_inside(name):
    layer = steppable_layers()[name]
    x = signal(2, 10, 3)
    params = drawn(layer, Frames(x, jnp.ones((2, 10), bool)))
    mask = jnp.arange(6)[None] < jnp.array([[6], [4]])
    state = layer.initial_state(2, 10, jnp.float32)
    _, state = layer.apply(params, Frames(x[:, :6], mask), state, method=layer.step)
    rest = jnp.stack([x[0, 6:10], x[1, 4:8]])
    out, _ = layer.apply(params, Frames(rest, jnp.ones((2, 4), bool)), state, method=layer.step)
    whole = layer.apply(params, Frames(x, jnp.ones((2, 10), bool))).values
    rate = whole.shape[1] / 10
    np.testing.assert_allclose(out.values[0], whole[0, int(6 * rate) : int(10 * rate)], atol=1e-5)
    np.testing.assert_allclose(out.values[1], whole[1, int(4 * rate) : int(8 * rate)], atol=1e-5)
    fresh = layer.reset(state, jnp.array([True, False]))
    assert not jnp.any(fresh[0])
    assert jnp.array_equal(fresh[1], state[1])


def test_causal_receptive_field_is_the_declared_one():
    layer = CausalConv1d(1, 1, 3, dilation=2)
    x = signal(1, 12, 1)
    params = drawn(layer, Frames(x, jnp.ones((1, 12), bool)))
    gradient = jax.grad(lambda v: layer.apply(params, Frames(v, jnp.ones((1, 12), bool))).values[0, 8, 0])(x)
    reached = np.flatnonzero(np.asarray(gradient)[0, :, 0])
    assert reached.max() == 8 + layer.latency
    assert reached.max() - reached.min() + 1 == layer.receptive_field


def test_half_precision_is_finite_and_wrong_settings_are_refused():
    x = signal(1, 9, 4)
    conv = Conv1d(6, 3, weight_norm=0, dtype=jnp.bfloat16)
    y = conv.apply(drawn(conv, x), x)
    assert y.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(y).all())
    for wrong in (Conv1d(6, 3, groups=3), Conv1d(6, 3, padding="full"), Conv1d(6, 1, stride=2, padding="causal")):
        with pytest.raises(UserError):
            wrong.init(jax.random.key(0), x)
