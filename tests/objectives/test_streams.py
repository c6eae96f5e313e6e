"""Next ids of several streams: every stream is a term of its own, weighed as configured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.types import EMPTY
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from tests.contracts.checks import random_params

BODY = DecoderConfig(vocabulary=1, layers=2, width=32, heads=2, hidden=64, positions="rope")
MODEL = MultiStreamConfig(streams=(12, 7, 5), body=BODY).make()
OBJECTIVE = NextStreamsConfig(names=("a", "b", "c"), weights=(1.0, 0.5, 0.0)).make(MODEL)
RNG = np.random.default_rng(0)
IDS = np.stack([RNG.integers(0, size, (4, 9)) for size in (12, 7, 5)], axis=-1).astype(np.int32)
BATCH = {"ids": IDS, "mask": np.arange(9) < np.array([[9], [6], [2], [9]])}


@pytest.fixture(scope="module")
def variables():
    return {"params": random_params(MODEL, jax.random.key(1), jnp.zeros((1, 2, 3), jnp.int32))}


@pytest.fixture(scope="module")
def loss():
    return jax.jit(lambda variables, batch: OBJECTIVE(variables, batch, None))


def test_it_is_the_cross_entropy_of_each_stream_over_its_real_targets(variables, loss):
    found = loss(variables, BATCH)
    logits = MODEL.apply(variables, jnp.asarray(IDS), mask=jnp.asarray(BATCH["mask"]))
    real = BATCH["mask"][:, 1:]
    for k, name in enumerate("abc"):
        ln_p = jax.nn.log_softmax(logits[:, :-1, k, : MODEL.config.streams[k]], axis=-1)
        picked = jnp.take_along_axis(ln_p, jnp.asarray(IDS[:, 1:, k, None]), axis=-1)[..., 0]
        np.testing.assert_allclose(found.terms[name].total, -(picked * real).sum(), rtol=1e-5)
        assert int(found.terms[name].count) == real.sum() == 22
    means = [float(found.terms[name].total / found.terms[name].count) for name in "ab"]
    np.testing.assert_allclose(found.value(), (means[0] + 0.5 * means[1]) / 1.5, rtol=1e-5)


def test_what_stands_apart_is_added_to_the_mean_over_the_others(variables):
    config = NextStreamsConfig(names=("a", "b", "c"), weights=(1.0, 9.0, 3.0), apart=1)
    found = config.make(MODEL)(variables, BATCH, None)
    means = [float(found.terms[name].total / found.terms[name].count) for name in "abc"]
    np.testing.assert_allclose(found.value(), means[0] + 0.75 * means[1] + 0.25 * means[2], rtol=1e-5)
    with pytest.raises(UserError, match="apart is 3"):
        config.replace(apart=3)


def test_padding_and_targets_without_weight_have_no_effect(variables, loss):
    other = {**BATCH, "ids": np.where(BATCH["mask"][..., None], IDS, 3)}
    np.testing.assert_allclose(loss(variables, other).value(), loss(variables, BATCH).value(), rtol=1e-6)
    weight = np.ones(IDS.shape, np.float32)
    weight[1:, :, 0] = 0.0
    found = loss(variables, {**BATCH, "target_weight": weight})
    assert float(found.terms["a"].count) == 8 and float(found.terms["b"].count) == 22


def test_an_empty_entry_is_no_target_and_adds_nothing_to_what_is_read(variables, loss):
    ids = IDS.copy()
    ids[:, ::2, 1] = EMPTY
    found = loss(variables, {**BATCH, "ids": ids})
    assert int(found.terms["b"].count) == (BATCH["mask"][:, 1:] & (ids[:, 1:, 1] >= 0)).sum() == 12
    assert int(found.terms["a"].count) == 22 and np.isfinite(found.value())


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="3 streams"):
        NextStreamsConfig(names=("a",), weights=(1.0,)).make(MODEL)
    with pytest.raises(UserError, match="one for each"):
        NextStreamsConfig(names=("a", "b"), weights=(1.0,))
    with pytest.raises(UserError, match="not all 0"):
        NextStreamsConfig(names=("a",), weights=(0.0,))
