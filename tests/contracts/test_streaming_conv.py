"""The shared contracts, held by the causal convolutions, strided and transposed too."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from slm_jax.core.contracts import Steppable
from slm_jax.core.types import Frames
from slm_jax.nn.streaming_conv import CausalConv1d, CausalConvTranspose1d
from tests.contracts import checks

LAYERS = {
    "plain": CausalConv1d(3, 5, 4),
    "dilated": CausalConv1d(3, 5, 3, dilation=2),
    "strided": CausalConv1d(3, 6, 5, stride=2, groups=3, weight_norm=0),
    "up": CausalConvTranspose1d(3, 5, 5, upsample=2),
    "up without overlap": CausalConvTranspose1d(3, 5, 2, upsample=2),
}
VALUES = jax.random.normal(jax.random.key(0), (3, 12, 3))
MASK = jnp.arange(12) < jnp.array([[12], [8], [6]])


@pytest.fixture(params=LAYERS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Layer, parameters, jitted whole and step functions, and which outputs are real."""
    layer = LAYERS[request.param]
    params = checks.random_params(layer, jax.random.key(1), Frames(VALUES, MASK))
    return layer, params, jax.jit(partial(whole, layer, params)), jax.jit(partial(step, layer, params)), mask_of(layer)


def whole(layer, params, values, mask):
    return layer.apply({"params": params}, Frames(values, mask)).values


def step(layer, params, values, mask, state):
    out, state = layer.apply({"params": params}, Frames(values, mask), state, method=layer.step)
    return out.values, state


def mask_of(layer):
    def real(mask):
        if isinstance(layer, CausalConvTranspose1d):
            return jnp.repeat(mask, layer.upsample, axis=1)
        return mask[:, :: layer.stride]

    return real


def test_stepwise_equals_whole(part):
    layer, _, run, advance, real = part
    assert isinstance(layer, Steppable)
    sizes = (layer.stride, 3 * layer.stride)
    checks.stepwise_equals_whole(run, advance, layer.initial_state(3), VALUES, MASK, sizes=sizes, real=real)


def test_masked_rows_keep_their_state_and_reset_forgets(part):
    layer, _, _, advance, _ = part
    state = layer.initial_state(3)
    if layer.receptive_field > layer.stride:  # without overlap there is nothing to remember
        checks.masked_rows_keep_state(advance, state, VALUES, size=layer.stride)
    checks.reset_forgets(advance, layer.reset, state, VALUES, size=layer.stride)


def test_padding_has_no_effect_and_rows_stand_alone(part):
    _, _, run, _, real = part
    checks.padding_has_no_effect(run, VALUES, MASK, garbage=7.0, real=real)
    checks.batched_equals_single(run, VALUES, MASK, real=real)


@pytest.mark.parametrize("part", ["plain", "up"], indirect=True)  # each kind of layer once
def test_compiled_equals_interpreted(part):
    layer, _, run, advance, _ = part
    checks.jit_equals_eager(run, VALUES, MASK)
    state = jnp.ones_like(layer.initial_state(3))
    if state.size:
        checks.jit_equals_eager(advance, VALUES, MASK, state)


def test_bfloat16_and_its_gradients_are_finite(part):
    layer, params, run, _, real = part
    low = layer.clone(dtype=jnp.bfloat16)
    checks.runs_in_bfloat16(jax.jit(partial(whole, low, params)), run, VALUES, MASK, real=real)
    checks.gradients_are_finite(lambda p: jnp.square(whole(low, p, VALUES, MASK)).mean(), params)


def test_declared_reach_is_the_measured_one(part):
    layer, params, _, _, _ = part

    def alone(values):
        return whole(layer, params, values, jnp.ones(values.shape[:2], bool))

    up, at = getattr(layer, "upsample", 1), 4
    first, last = checks.measured_reach(alone, VALUES[:1], at)
    assert last == (at // up + 1) * layer.stride - 1 + layer.latency
    assert last - first + 1 == min(layer.receptive_field, last + 1)
