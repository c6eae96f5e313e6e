"""What holds of every codec whatever it is made of."""

import jax
import jax.numpy as jnp
import pytest

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.types import Codes
from slm_jax.decoders.dac import DACDecoderConfig
from slm_jax.encoders.dac import DACEncoderConfig
from slm_jax.quantizers.codebooks import CodebookConfig
from slm_jax.quantizers.residual import ResidualVQConfig
from tests.codecs import CODECS

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
