"""The contract of adapters: known lengths, masks honoured, batched = single."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.core.contracts import Adapter
from slm_jax.core.types import Frames
from tests.contracts import checks

ADAPTERS = {
    "linear": LinearAdapterConfig(width=5),
    "stacked": LinearAdapterConfig(width=5, stack=3),
}
VALUES = jax.random.normal(jax.random.key(0), (3, 10, 4))
MASK = jnp.arange(10) < jnp.array([[10], [7], [1]])


@pytest.fixture(params=ADAPTERS, scope="module")
def part(request):
    """Module, parameters, jitted `whole(values, mask)` and which outputs are real."""
    config = ADAPTERS[request.param]
    adapter = config.make()
    params = checks.random_params(adapter, jax.random.key(1), Frames(VALUES, MASK))

    def run(values, mask):
        return adapter.apply({"params": params}, Frames(values, mask))

    return adapter, params, jax.jit(run)


def real_of(run, mask):
    return run(VALUES[:, : mask.shape[1]], mask).mask


def test_lengths_are_known_beforehand(part):
    adapter, _, run = part
    assert isinstance(adapter, Adapter)
    lengths = [adapter.config.frames_out(int(n)) for n in MASK.sum(1)]
    assert np.asarray(run(VALUES, MASK).mask).sum(1).tolist() == lengths
    assert run(VALUES, MASK).values.shape[1] == adapter.config.frames_out(VALUES.shape[1])


def test_padding_has_no_effect_and_a_row_is_the_same_alone(part):
    _, _, run = part
    whole = lambda values, mask: run(values, mask).values  # noqa: E731
    real = partial(real_of, run)
    checks.padding_has_no_effect(whole, VALUES, MASK, jnp.nan * jnp.ones_like(VALUES), real=real)
    checks.batched_equals_single(whole, VALUES, MASK, real=real)


def test_gradients_are_finite_and_nothing_is_idle(part):
    adapter, params, run = part
    mask = run(VALUES, MASK).mask

    def loss(params):
        return jnp.square(adapter.apply({"params": params}, Frames(VALUES, MASK)).values * mask[..., None]).sum()

    checks.gradients_are_finite(loss, params)


def test_bfloat16(part):
    adapter, params, run = part
    low = adapter.config.replace(dtype="bfloat16").make()
    checks.runs_in_bfloat16(
        lambda v, m: low.apply({"params": params}, Frames(v, m)).values,
        lambda v, m: run(v, m).values,
        VALUES,
        MASK,
        real=partial(real_of, run),
    )
