"""Published codecs: their parameters, rates and bitrates are those that were published."""

import jax
import jax.numpy as jnp
import pytest
from flax.core import meta

from slm_jax.assemblies.codec_presets import dac, encodec, mimi, snac, soundstream
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters

SIZES = {  # parameters without codebooks of averages, frames a second, bits a second
    "soundstream": (soundstream(), 10_502_690, 50, 6000),
    "encodec": (encodec(), 14_851_810, 75, 6000),
    "mimi": (mimi(8), 79_308_609, 12.5, 1100),
    "dac 16": (dac(16_000), 74_175_906, 50, 6000),
    "dac 24": (dac(24_000), 74_708_706, 75, 24_000),
    "dac 44": (dac(44_100), 76_651_890, 44_100 / 512, 9 * 10 * 44_100 / 512),
    "snac 24": (snac(24_000), 19_840_000, 24_000 / 2048, 984),
    "snac 32": (snac(32_000), 54_550_000, 32_000 / 3072, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_that_were_published(name):
    config, wanted, frames, bits = SIZES[name]
    assert config.frames_per_second == pytest.approx(frames)
    assert bits is None or config.bits_per_second() == pytest.approx(bits, rel=2e-3)
    assert from_json(config.to_json()) == config
    if wanted is not None:
        assert counted(config) == pytest.approx(wanted, rel=5e-4 if name.startswith("snac") else 0)


def counted(config):
    """Parameters, codebooks of averages left out, as the papers count; SNAC's books are parameters."""
    samples = jax.ShapeDtypeStruct((1, config.unit), jnp.float32)
    shapes = meta.unbox(jax.eval_shape(config.make().init, jax.random.key(0), samples))
    return count_parameters(shapes["params"])


def test_unknown_rates_are_named():
    with pytest.raises(UserError, match="rate of DAC is 48000: one of 16000"):
        dac(48_000)
