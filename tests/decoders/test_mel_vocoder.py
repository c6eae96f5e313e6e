"""The vocoder on mels: its constants, what it refuses. The generator has tests of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.mel_vocoder import MelVocoderConfig

GENERATOR = HiFiGANConfig(
    upsample=(3, 2), upsample_kernels=(7, 4), channels=8, resblock_kernels=(3,), resblock_dilations=((1,),)
)
TINY = MelVocoderConfig(mels=5, rate_hz=16_000, features=None, normalise=True, generator=GENERATOR)


def drawn(config=TINY):
    """Normal weights: loud enough that every layer matters, and nothing to compile."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(config.make().init, jax.random.key(0), jnp.zeros((1, 3, config.mels)))
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, nn.meta.unbox(shapes))["params"] | {"mean": jnp.arange(5.0), "scale": jnp.arange(1.0, 6)}


def frames_of(rows):
    return jnp.asarray(np.random.default_rng(1).normal(size=(rows, 7, 5)), jnp.float32)


def test_constants_normalise_the_features():
    params, frames = drawn(), frames_of(2)
    plain = jax.jit(TINY.replace(normalise=False).make().apply)
    normalised = (frames - params["mean"]) / params["scale"]
    made = jax.jit(TINY.make().apply)({"params": params}, frames)
    np.testing.assert_allclose(made, plain({"params": {"generator": params["generator"]}}, normalised), atol=1e-6)
    assert made.shape == (2, 7 * TINY.hop)
    assert float(made.std()) > 0.01


def test_constants_are_not_trained():
    frames = frames_of(1)
    gradient = jax.jit(jax.grad(lambda params: jnp.square(TINY.make().apply({"params": params}, frames)).sum()))
    found = gradient(drawn())
    assert not np.asarray(found["mean"]).any()
    assert not np.asarray(found["scale"]).any()
    assert np.asarray(found["generator"]["conv_pre"]["weight_g"]).any()


def test_padding_has_no_effect():
    variables, frames = {"params": drawn()}, frames_of(1)
    apply, mask = jax.jit(TINY.make().apply), jnp.arange(7)[None] < 4
    made = apply(variables, jnp.where(mask[..., None], frames, 1e3), mask)
    alone = apply(variables, frames[:, :4])
    np.testing.assert_allclose(made[:, : 4 * TINY.hop], alone, atol=1e-6)
    assert not np.asarray(made[:, 4 * TINY.hop :]).any()


def test_another_width_and_another_recipe_are_refused():
    with pytest.raises(UserError, match="needs 5 mels"):
        TINY.make().init(jax.random.key(0), jnp.zeros((1, 3, 6)))
    with pytest.raises(UserError, match=r"features\.hop is 256: the vocoder's own is 6"):
        MelVocoderConfig(generator=GENERATOR)
    with pytest.raises(UserError, match=r"features\.rate_hz is 22050"):
        MelVocoderConfig(rate_hz=16_000)


def test_config_travels_as_json():
    for config in (TINY, MelVocoderConfig()):
        assert from_json(config.to_json()) == config
