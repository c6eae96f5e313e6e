"""The shared contracts, held by the self-supervised encoders on both front ends and by Whisper's in both its forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contracts import checks
from tests.shapes import ENCODERS, WHISPER

KINDS = ENCODERS | {"whisper": WHISPER.encoder, "whisper, trimmed": WHISPER.encoder.replace(trim=True)}
SAMPLES = 0.1 * jax.random.normal(jax.random.key(0), (2, 3760))
MASK = jnp.arange(3760) < jnp.array([[3760], [2100]])


@pytest.fixture(params=KINDS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Config, parameters, the jitted encoder, and which frames are real."""
    config = KINDS[request.param]
    params = checks.random_params(config.make(), jax.random.key(2), SAMPLES)
    return config, params, jax.jit(partial(whole, config, params)), partial(frames_of, config)


def whole(config, params, samples, mask):
    return config.make().apply({"params": params}, samples, mask).values


def frames_of(config, mask):
    return jnp.arange(config.frame_count(mask.shape[1])) < config.frame_count(mask.sum(1))[:, None]


def loss(config, params):
    values = whole(config, params, SAMPLES, MASK)
    return jnp.square(jnp.where(frames_of(config, MASK)[..., None], values, 0.0)).mean()


def test_padding_has_no_effect_and_rows_stand_alone(part):
    _, _, run, real = part
    checks.padding_has_no_effect(run, SAMPLES, MASK, garbage=7.0, real=real)
    checks.batched_equals_single(run, SAMPLES, MASK, real=real)
    heard = np.asarray(run(SAMPLES, MASK))[np.asarray(real(MASK))]
    assert np.median(heard.std(axis=0)) > 0.1, "what hears nothing would pass as well"


@pytest.mark.parametrize("part", ["waveform"], indirect=True)  # each kind of layer once
def test_compiled_equals_interpreted(part):
    checks.jit_equals_eager(part[2], SAMPLES, MASK)


def test_unrolled_equals_scanned_and_recomputed(part):
    config, params, _, _ = part
    unrolled, scanned = config.replace(unroll=True), config.replace(unroll=False, remat=True)
    checks.same_function(partial(loss, unrolled), partial(loss, scanned), params)


def test_bfloat16_and_its_gradients_are_finite(part):
    config, params, run, real = part
    low = config.replace(dtype="bfloat16")
    checks.runs_in_bfloat16(jax.jit(partial(whole, low, params)), run, SAMPLES, MASK, real=real)
    checks.gradients_are_finite(partial(loss, low), params, without=["mask_embedding", "positions"])
