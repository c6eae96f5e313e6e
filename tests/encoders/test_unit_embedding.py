"""The encoder of units: a row of a table for each, in the contract of encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.contracts import EncoderConfig
from slm_jax.core.errors import UserError
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from tests.contracts import checks

CONFIG = UnitEmbeddingConfig(units=7, width=6)
IDS = jnp.array([[3, 3, 0, 6, 1], [5, 2, 4, 0, 0]])
MASK = jnp.arange(5) < jnp.array([[5], [3]])
PARAMS = checks.random_params(CONFIG.make(), jax.random.key(0), IDS)


@jax.jit
def encoded(ids, mask):
    return CONFIG.make().apply({"params": PARAMS}, ids, mask, collect=True)


def test_a_unit_is_a_row_of_the_table_and_padding_is_zero():
    out, table = encoded(IDS, MASK), np.asarray(PARAMS["units"]["embedding"])
    np.testing.assert_array_equal(out.values[0], table[np.asarray(IDS[0])])
    np.testing.assert_array_equal(out.values[1, 3:], np.zeros((2, 6)))
    np.testing.assert_array_equal(out.mask, MASK)
    np.testing.assert_array_equal(out.hidden[0], out.values)


@pytest.mark.parametrize("garbage", [10**9, -5])
def test_padding_has_no_effect_and_rows_stand_alone(garbage):
    def run(ids, mask):
        return encoded(ids, mask).values

    checks.padding_has_no_effect(run, IDS, MASK, garbage=garbage)
    checks.batched_equals_single(run, IDS, MASK)


def test_it_is_in_the_contract_of_encoders_and_reads_ids():
    assert isinstance(CONFIG, EncoderConfig)
    assert (CONFIG.frame_count(9), CONFIG.hop, CONFIG.layers, CONFIG.reads) == (9, 1, 0, "int32")
    assert encoded(IDS, MASK).hidden.shape == (CONFIG.layers + 1, 2, 5, CONFIG.width)
    assert from_json(CONFIG.to_json()) == CONFIG
    low = CONFIG.replace(dtype="bfloat16").make().apply({"params": PARAMS}, IDS)
    assert low.values.dtype == jnp.bfloat16 and low.mask.all()


def test_only_units_that_are_drawn_learn():
    gradient = jax.grad(lambda p: CONFIG.make().apply({"params": p}, IDS, MASK).values.sum())(PARAMS)
    learnt = np.abs(np.asarray(gradient["units"]["embedding"])).max(1) > 0
    assert learnt.tolist() == [True] * 7  # all occur in real entries
    alone = jax.grad(lambda p: CONFIG.make().apply({"params": p}, IDS[1:], MASK[1:]).values.sum())(PARAMS)
    assert np.flatnonzero(np.asarray(alone["units"]["embedding"]).any(1)).tolist() == [2, 4, 5]


def test_bad_values_are_refused():
    with pytest.raises(UserError, match="units is 0"):
        UnitEmbeddingConfig(units=0, width=4)
    with pytest.raises(UserError, match="layer is 1: an embedding of units has layer 0 only"):
        CONFIG.make().apply({"params": PARAMS}, IDS, layer=1)
