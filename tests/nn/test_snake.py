"""The snake's sine against float64, its gradient, and what it makes of numbers that have no phase."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.types import Frames
from slm_jax.nn.snake import Snake, sine_squared


@pytest.mark.parametrize("reach", [0.01, 1.0, 10.0, 10_000.0])
def test_the_squared_sine_and_its_gradient_are_those_of_float64(reach):
    x = np.random.default_rng(0).uniform(-reach, reach, 20_000).astype(np.float32)
    wanted = np.sin(x.astype(np.float64))
    np.testing.assert_allclose(sine_squared(jnp.asarray(x)), np.square(wanted), atol=1e-6)
    slope = jax.vmap(jax.grad(sine_squared))(jnp.asarray(x))
    np.testing.assert_allclose(slope, np.sin(2 * x.astype(np.float64)), atol=3e-6)


def test_numbers_without_a_phase_stay_between_0_and_1_and_nan_is_not_hidden():
    found = np.asarray(sine_squared(jnp.array([1e8, -3e20, 1e38])))
    assert ((found >= 0) & (found <= 1.01)).all()
    assert np.isnan(sine_squared(jnp.array([np.nan, np.inf]))).all()


def test_a_snake_in_bfloat16_takes_its_sine_in_float32():
    x = jnp.linspace(-40.0, 40.0, 64).reshape(1, 16, 4).astype(jnp.bfloat16)
    frames = Frames(x, jnp.ones((1, 16), bool))
    params = Snake().init(jax.random.key(0), frames)
    made = Snake().apply(params, frames).values
    wide = x.astype(jnp.float32) + np.square(np.sin(np.asarray(x, np.float64)))
    assert made.dtype == jnp.bfloat16
    np.testing.assert_allclose(made.astype(jnp.float32), wide, rtol=8e-3, atol=8e-3)


def test_float64_is_not_narrowed():
    x = np.linspace(-9.0, 9.0, 64)
    with jax.enable_x64(True):
        np.testing.assert_allclose(sine_squared(jnp.asarray(x)), np.square(np.sin(x)), rtol=1e-12, atol=1e-15)
