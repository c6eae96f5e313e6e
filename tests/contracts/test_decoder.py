"""The shared contracts, held by the decoder in each of its kinds."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Float

from slm_jax.nn.relative_bias import RelativeBiasConfig
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.decoder_config import DecoderConfig
from slm_jax.sequence_models.presets import audiolm_stage, opt, qwen2
from tests.contracts import checks

SMALL = {"vocabulary": 23, "layers": 2, "width": 16, "heads": 4, "hidden": 24, "init_scale": 0.3}
CONFIGS = {
    "opt350m": opt("350m", **SMALL, embed_width=8, max_positions=32),
    "qwen2": qwen2(**SMALL, kv_heads=2, qk_norm=True, window=3),
    "gslm": DecoderConfig(**SMALL, activation="relu", positions="sinusoidal", position_offset=2, embed_scale=4.0),
    "audiolm": audiolm_stage(
        **SMALL,
        head_width=6,
        gated=True,
        relative_bias=RelativeBiasConfig(buckets=4, max_distance=5, bidirectional=False),
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    ),
}
IDS = jax.random.randint(jax.random.key(1), (3, 7), 0, 23)
MASK = jnp.arange(7) < jnp.array([7, 4, 6])[:, None]


@pytest.fixture(params=CONFIGS, scope="module")
def part(request: pytest.FixtureRequest) -> tuple:
    """Model, parameters, and jitted whole and step functions."""
    model = CONFIGS[request.param].make()
    params = checks.random_params(model, jax.random.key(2), IDS)
    return model, params, jax.jit(partial(whole, model, params)), jax.jit(partial(step, model, params))


def whole(model, params, ids, mask):
    return model.apply({"params": params}, ids, mask=mask)


def step(model, params, ids, mask, state):
    return model.apply({"params": params}, ids, state, mask, method="step")


def test_stepwise_equals_whole(part):
    model, _, run, advance = part
    state = checks.stepwise_equals_whole(run, advance, model.initial_state(3, 10), IDS, MASK, sizes=(1, 3))
    assert state[0].length.tolist() == [7, 4, 6]


def test_masked_rows_keep_their_state_and_reset_forgets(part):
    model, _, _, advance = part
    checks.masked_rows_keep_state(advance, model.initial_state(3, 10), IDS)
    checks.reset_forgets(advance, model.reset, model.initial_state(3, 10), IDS)


def test_padding_has_no_effect_and_rows_stand_alone(part):
    _, _, run, _ = part
    checks.padding_has_no_effect(run, IDS, MASK, garbage=(IDS + 5) % 23)
    checks.batched_equals_single(run, IDS, MASK)


def test_compiled_equals_interpreted():
    model = CONFIGS["qwen2"].make()
    params = checks.random_params(model, jax.random.key(2), IDS)
    checks.jit_equals_eager(partial(whole, model, params), IDS, MASK)


def test_gradients_are_finite(part):
    _, params, _, _ = part

    def loss(params):
        return jnp.square(whole(part[0], params, IDS, MASK)).mean()

    checks.gradients_are_finite(loss, params)


def test_bfloat16_is_finite(part):
    model, params, run, _ = part
    low = model.clone(config=model.config.replace(dtype="bfloat16"))
    logits = jax.jit(partial(whole, low, params))(IDS, MASK)
    assert logits.dtype == jnp.float32
    checks.runs_in_bfloat16(lambda *_: logits, run, IDS, MASK)


@pytest.mark.parametrize(
    "changes", [{"unroll": True}, {"unroll": True, "remat": True}, {"unroll": False, "remat": True}]
)
def test_every_form_of_the_stack_is_one_function(changes):
    config = CONFIGS["qwen2"]
    scanned, other = config.replace(unroll=False).make(), config.replace(**changes).make()
    params = checks.random_params(scanned, jax.random.key(2), IDS)

    def loss(model, params):
        return jnp.square(whole(model, params, IDS, MASK)).mean()

    checks.same_function(partial(loss, other), partial(loss, scanned), params)


def test_unstacked_parameters_give_the_same(part):
    _, params, run, _ = part
    unstacked = jax.jit(partial(whole, part[0], unstack(params)))
    checks.assert_close(unstacked(IDS, MASK), run(IDS, MASK), 1e-5)


@pytest.mark.parametrize("name", ["gslm", "qwen2"])
def test_declared_reach_is_the_measured_one(name):
    model = CONFIGS[name].make()
    params = checks.random_params(model, jax.random.key(2), IDS)
    x: Float[Array, "B T D"] = jax.random.normal(jax.random.key(3), (1, 12, 16))
    first, last = checks.measured_reach(lambda x: model.apply({"params": params}, x, method="run"), x, at=9)
    reach = model.receptive_field or 10
    assert (first, last) == (10 - reach, 9 + model.latency)
