import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.contracts import Steppable
from slm_jax.core.errors import UserError
from slm_jax.core.trees import count_parameters
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.presets import llama
from tests.contracts.checks import (
    assert_close,
    masked_rows_keep_state,
    padding_has_no_effect,
    random_params,
    reset_forgets,
    stepwise_equals_whole,
)

BODY = llama("7b", vocabulary=1, layers=2, width=32, heads=4, kv_heads=2, hidden=48, tied_head=True)
SIZES = (24, 12, 12)
MODEL = MultiStreamConfig(streams=SIZES, body=BODY).make()
IDS = jnp.asarray(np.random.default_rng(0).integers(0, SIZES, (3, 8, 3)), jnp.int32)
MASK = jnp.arange(8) < jnp.array([8, 3, 5])[:, None]
PARAMS = random_params(MODEL, jax.random.key(2), IDS)
VARIABLES = {"params": unstack(PARAMS)}


@jax.jit
def whole(ids, mask):
    return finite(MODEL.apply(VARIABLES, ids, mask=mask))


@jax.jit
def step(ids, mask, state):
    logits, state = MODEL.apply(VARIABLES, ids, state, mask, method="step")
    return finite(logits), state


def finite(logits):
    """Beyond the size of a stream there are no logits; 0 takes the place of -inf there."""
    beyond = np.arange(max(SIZES)) >= np.array(SIZES)[:, None]
    return jnp.where(beyond & jnp.isneginf(logits), 0.0, logits)


def test_it_holds_the_contract_of_layers_with_a_step():
    assert isinstance(MODEL, Steppable)
    state = MODEL.initial_state(3, 9)
    stepwise_equals_whole(whole, step, state, IDS, MASK, sizes=(1, 3))
    masked_rows_keep_state(step, state, IDS)
    reset_forgets(step, MODEL.reset, state, IDS)
    padding_has_no_effect(whole, IDS, MASK, 7)


def test_prefill_gives_the_logits_after_the_last_real_step():
    last, _ = MODEL.apply(VARIABLES, IDS, MODEL.initial_state(3, 9), MASK, method="prefill")
    assert_close(finite(last), whole(IDS, MASK)[jnp.arange(3), jnp.array([7, 2, 4])], 1e-5)


def test_streams_are_summed_and_an_empty_entry_adds_nothing():
    tables = [PARAMS[f"tables_{k}"]["embedding"] for k in range(3)]
    ids = IDS.at[0, 0, 1].set(-1)
    wanted = sum(jnp.where(ids[..., k, None] < 0, 0, tables[k][ids[..., k]]) for k in range(3))
    assert_close(MODEL.apply(VARIABLES, ids, method="embed"), wanted, 1e-6)


def test_a_smaller_stream_has_no_logits_beyond_its_size():
    logits = np.asarray(MODEL.apply(VARIABLES, IDS, mask=MASK))
    assert logits.shape == (3, 8, 3, 24)
    for k, size in enumerate(SIZES):
        assert np.isfinite(logits[:, :, k, :size]).all()
        assert np.isneginf(logits[:, :, k, size:]).all()


def test_it_has_the_weights_that_its_config_says_and_no_others():
    alone = BODY.make()
    stack = random_params(alone, jax.random.key(0), IDS[..., 0])
    stack.pop("tokens")
    assert count_parameters(PARAMS) == count_parameters(stack) + 2 * sum(SIZES) * BODY.width
    assert set(PARAMS) == {"body", *(f"tables_{k}" for k in range(3)), *(f"head_{k}" for k in range(3))}


def test_its_config_survives_json_and_refuses_what_it_has_no_use_for():
    assert from_json(MODEL.config.to_json()) == MODEL.config
    with pytest.raises(UserError, match="heads of their own"):
        MultiStreamConfig(streams=(4,), body=BODY.replace(tied_head=False))
    with pytest.raises(UserError, match="streams"):
        MultiStreamConfig(streams=(4, 0), body=BODY)
