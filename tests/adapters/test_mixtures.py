"""What WavLLM puts around its convolutions: layers mixed, streams cut to each other, factors out of an instruction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.layer_mix import LayerMixConfig
from slm_jax.adapters.linear import LinearAdapterConfig
from slm_jax.adapters.prompt_scale import PromptScaleConfig
from slm_jax.adapters.streams import StreamsConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from tests.contracts.checks import random_params

MASK = jnp.arange(6) < jnp.array([[6], [4]])
VALUES = jax.random.normal(jax.random.key(0), (2, 6, 8))


def frames(values=VALUES, mask=MASK):
    return Frames(jnp.where(mask[..., None], values, jnp.nan), mask)


def test_layers_begin_equal_and_are_weighed_by_a_softmax():
    config = LayerMixConfig(layers=4, width=2)
    born = config.make().init(jax.random.key(0), frames())["params"]
    states = np.asarray(VALUES).reshape(2, 6, 4, 2)
    for weights in (np.ones(4), np.array([0.0, 1.0, -1.0, 2.0])):
        params = {"weights": jnp.asarray(weights, jnp.float32)}
        out = config.make().apply({"params": params}, frames())
        shares = np.exp(weights) / np.exp(weights).sum()
        wanted = (states * shares[:, None]).sum(2)
        np.testing.assert_allclose(np.where(MASK[..., None], out.values, 0), wanted * MASK[..., None], atol=1e-6)
    assert jax.tree.leaves(born)[0].tolist() == [1.0] * 4
    with pytest.raises(UserError, match="width is 3"):
        LayerMixConfig(layers=4, width=3).make().init(jax.random.key(0), frames())


def test_the_stream_that_lasts_longer_is_cut_to_the_other():
    """Each row at the end of the one that ends first there."""
    config = StreamsConfig(first=LinearAdapterConfig(width=3, stack=2), second=LinearAdapterConfig(width=2))
    other = Frames(VALUES[:, :4, :5], jnp.arange(4) < jnp.array([[2], [4]]))
    module = config.make()
    params = random_params(module, jax.random.key(1), frames(), other)
    out = module.apply({"params": params}, frames(), other)
    assert out.mask.sum(1).tolist() == [2, 2] == [config.frames_of(6, 2), config.frames_of(4, 4)]
    assert out.values.shape == (2, 3, 5) and config.width == 5
    first = config.first.make().apply({"params": params["first"]}, frames())
    second = config.second.make().apply({"params": params["second"]}, other)
    np.testing.assert_allclose(out.values[:, :2, :3], first.values[:, :2], atol=1e-6)
    np.testing.assert_allclose(out.values[:, :2, 3:], second.values[:, :2], atol=1e-6)
    assert np.isfinite(out.values).all()


def test_factors_begin_at_one_are_kept_within_bounds_and_ignore_padding():
    config = PromptScaleConfig(width=8, hidden=4)
    born = config.make().init(jax.random.key(0), frames(1e-3 * VALUES))
    np.testing.assert_allclose(config.make().apply(born, frames(1e-3 * VALUES)), np.ones((2, 8)), atol=0.05)
    params = random_params(config.make(), jax.random.key(1), frames(), scale=1.0)
    run = jax.jit(lambda x: config.make().apply({"params": params}, x))
    out = np.asarray(run(frames()))
    assert out.min() == 0.0 and out.max() == 3.0 and len(np.unique(out)) > 4
    alone = run(Frames(VALUES[1:, :4], jnp.ones((1, 4), bool)))
    np.testing.assert_allclose(out[1:], alone, atol=1e-5)
    assert run(frames(mask=jnp.zeros((2, 6), bool))).tolist() == np.zeros((2, 8)).tolist()


def test_factors_of_rotated_outputs_take_the_order_of_halves():
    config = PromptScaleConfig(width=8, paired="rotated", heads=2)
    factors = jnp.arange(8.0)[None]
    assert config.of("rotated", factors).tolist() == [[0, 2, 1, 3, 4, 6, 5, 7]]
    assert config.of("plain", factors) is factors
    with pytest.raises(UserError, match="heads is 3"):
        PromptScaleConfig(width=8, paired="rotated", heads=3)
