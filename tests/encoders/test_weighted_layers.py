"""The mixture of an encoder's layers against a plain sum, around encoders of both kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.config import from_json
from slm_jax.core.trees import flatten_by_path
from slm_jax.encoders.weighted_layers import WeightedLayersConfig
from tests.contracts.checks import random_params
from tests.shapes import ENCODERS

N = 3_760
SAMPLES = 0.1 * jax.random.normal(jax.random.key(0), (2, N))
MASK = jnp.arange(N) < jnp.array([[N], [2_100]])


def encode(config, params, **settings):
    return jax.jit(lambda p: config.make().apply({"params": p}, SAMPLES, MASK, **settings))(params)


@pytest.mark.parametrize("name, norm", [("waveform", False), ("log_mel", True)])
def test_it_is_the_plain_sum(name, norm):
    """`log_mel` has a norm after its last layer, which does not count."""
    inner = ENCODERS[name]
    config = WeightedLayersConfig(encoder=inner, norm=norm)
    params = random_params(config.make(), jax.random.key(1), SAMPLES, scale=0.6)
    out, plain = encode(config, params, collect=True), encode(inner, params["encoder"], collect=True)
    states = np.asarray(plain.hidden, np.float64)
    if norm:
        states = (states - states.mean(-1, keepdims=True)) / np.sqrt(states.var(-1, keepdims=True) + 1e-5)
    weights = np.exp(np.asarray(params["layer_weights"], np.float64))
    assert np.ptp(weights) > 0.3
    wanted = sum(w * state for w, state in zip(weights / weights.sum(), states, strict=True))
    real = np.asarray(out.mask)
    np.testing.assert_array_equal(real, plain.mask)
    np.testing.assert_allclose(np.asarray(out.values)[real], wanted[real], atol=1e-5)
    np.testing.assert_allclose(out.hidden, plain.hidden, atol=1e-6)


def test_it_begins_with_equal_weights_over_the_encoders_own_parameters():
    inner = ENCODERS["waveform"]
    config = WeightedLayersConfig(encoder=inner)
    params = meta.unbox(jax.eval_shape(config.make().init, jax.random.key(0), SAMPLES))["params"]
    alone = meta.unbox(jax.eval_shape(inner.make().init, jax.random.key(0), SAMPLES))["params"]
    assert params["layer_weights"].shape == (3,)
    assert flatten_by_path(params["encoder"]).keys() == flatten_by_path(alone).keys()
    drawn = jax.jit(lambda key: meta.unbox(config.make().init(key, SAMPLES))["params"]["layer_weights"])
    assert drawn(jax.random.key(0)).tolist() == [0.0, 0.0, 0.0]


def test_one_layer_comes_unmixed():
    config = WeightedLayersConfig(encoder=ENCODERS["waveform"])
    params = random_params(config.make(), jax.random.key(1), SAMPLES)
    np.testing.assert_allclose(
        encode(config, params, layer=1).values, encode(config, params, collect=True).hidden[1], atol=1e-5
    )


def test_says_what_its_encoder_says_and_travels_as_json():
    config = WeightedLayersConfig(encoder=ENCODERS["log_mel"], norm=True)
    assert (config.layers, config.width, config.hop, config.frame_count(N)) == (2, 16, 320, 11)
    assert from_json(config.to_json()) == config
