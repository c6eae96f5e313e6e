"""What holds of every codec whatever it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Codes, Frames
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from tests.codecs import CODECS, drawn_variables

SIDES = {"channels": 8, "width": 32, "strides": (5, 3)}
ODD = CodecConfig(
    encoder=DACEncoderConfig(**SIDES),
    decoder=DACDecoderConfig(**SIDES),
    quantizer=ResidualVQConfig(width=32, books=2, codebook=CodebookConfig(size=8, width=32)),
    whole=True,
)


@pytest.mark.parametrize("config", [ODD, CODECS["as Mimi"]], ids=["as DAC, odd strides", "as Mimi"])
def test_sound_is_as_long_as_its_frames(config):
    """DAC's transposed convolutions give a sample less for every odd stride."""
    codec, samples = config.make(), jax.ShapeDtypeStruct((2, 4 * config.unit), jnp.float32)
    variables = jax.eval_shape(codec.init, jax.random.key(0), samples)
    coded = jax.eval_shape(codec.apply, variables, samples)
    assert coded.samples.shape == samples.shape
    frames = config.frame_count(samples.shape[1])
    ids = jax.ShapeDtypeStruct((2, frames, config.quantizer.columns()), jnp.int32)

    def decoded(variables, ids):
        return codec.apply(variables, Codes(ids, jnp.ones(ids.shape[:2], bool)), method="decode")

    made = jax.eval_shape(decoded, variables, ids)
    assert made.shape == (2, frames * config.hop)


def test_some_rows_reach_the_decoder_as_they_are_in_training_alone():
    config = CODECS["over spectra"].replace(unquantized=0.5)
    codec, variables = config.make(), drawn_variables(config, 0)
    samples = 0.3 * jax.random.normal(jax.random.key(1), (16, 4 * config.unit))
    apply = jax.jit(lambda key: codec.apply(variables, samples, deterministic=False, rngs={"dropout": key}))
    coded = apply(jax.random.key(2))
    quantized, plain = (
        codec.apply(variables, Frames(values, coded.latents.mask), method="synthesised").values[..., 0]
        for values in (coded.quantized.values, coded.latents.values)
    )
    as_they_are = jnp.abs(coded.samples - plain).max(-1) < 1e-4
    assert 0 < as_they_are.sum() < 16
    np.testing.assert_array_equal(as_they_are, jnp.abs(coded.samples - quantized).max(-1) > 1e-4)
    np.testing.assert_allclose(codec.apply(variables, samples).samples, quantized, atol=1e-5)
    with pytest.raises(UserError, match="unquantized"):
        config.replace(unquantized=1.0)
