"""The shared contracts, held by the vocoders: both generators on features, and the unit vocoder on each."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from tests.contracts import checks
from tests.shapes import GENERATORS

UNITS = {"units": 10, "unit_dim": 6, "speakers": 2, "speaker_dim": 4, "durations": None, "pitch_predictor": None}
CONFIGS = {
    **GENERATORS,
    "units on light hifigan": UnitVocoderConfig(generator=GENERATORS["hifigan"].replace(resblock="2"), **UNITS),
    "units on harmonic istft": UnitVocoderConfig(generator=GENERATORS["harmonic istft"], **UNITS),
}
MASK = jnp.arange(9) < jnp.array([[9], [6]])
FEATURES = jax.random.normal(jax.random.key(1), (2, 9, 7))
IDS = jax.random.randint(jax.random.key(1), (2, 9), 0, 10)


@pytest.fixture(params=CONFIGS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Config, parameters, inputs, the jitted vocoder, and which samples are real."""
    config = CONFIGS[request.param]
    values = IDS if isinstance(config, UnitVocoderConfig) else FEATURES
    params = checks.random_params(config.make(), jax.random.key(2), values, MASK, **pitch_of(config, values))
    return config, params, values, jax.jit(partial(whole, config, params)), partial(samples_of, config)


def pitch_of(config, values):
    """F0, voicing and speaker, all drawn from the values, so that garbage in these is garbage in those."""
    about = values[..., 0] if values.ndim == 3 else values - 4.5
    track = {"f0_hz": 130.0 + 40.0 * jnp.tanh(about), "voiced": jnp.sin(9.0 * about) > -0.5}
    if isinstance(config, UnitVocoderConfig):
        return track | {"speaker": jnp.zeros(len(values), jnp.int32)}
    return track if config.reads_pitch else {}


def whole(config, params, values, mask):
    return config.make().apply({"params": params}, values, mask, **pitch_of(config, values))


def samples_of(config, mask):
    return jnp.repeat(mask, config.hop, axis=1)


def in_bfloat16(config):
    if isinstance(config, UnitVocoderConfig):
        return config.replace(generator=config.generator.replace(dtype="bfloat16"))
    return config.replace(dtype="bfloat16")


def loss(config, params, values):
    return jnp.square(whole(config, params, values, MASK) - 0.1).mean()


def test_padding_has_no_effect_and_rows_stand_alone(part):
    _, _, values, run, real = part
    garbage = (values + 5) % 10 if values.ndim == 2 else 9.0
    checks.padding_has_no_effect(run, values, MASK, garbage=garbage, real=real)
    checks.batched_equals_single(run, values, MASK, real=real)
    assert not run(values, MASK)[~real(MASK)].any()


@pytest.mark.parametrize(
    "part", ["hifigan", "harmonic istft", "units on light hifigan"], indirect=True
)  # each kind of layer once
def test_compiled_equals_interpreted(part):
    checks.jit_equals_eager(part[3], part[2], MASK)


def test_bfloat16_and_its_gradients_are_finite(part):
    config, params, values, run, real = part
    low = in_bfloat16(config)
    checks.runs_in_bfloat16(jax.jit(partial(whole, low, params)), run, values, MASK, real=real)
    checks.gradients_are_finite(partial(loss, low, values=values), params)
