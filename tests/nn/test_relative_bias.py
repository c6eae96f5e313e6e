"""Biases by distance: which bucket, which entry of the table, at which positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.nn.relative_bias import RelativeBias, RelativeBiasConfig, buckets_of

TWO_SIDED = RelativeBiasConfig(buckets=8, max_distance=10)
ONE_SIDED = TWO_SIDED.replace(bidirectional=False)
HEADS = 3


def table_of(config: RelativeBiasConfig) -> dict:
    return {"embedding": jax.random.normal(jax.random.key(0), (config.buckets, HEADS))}


def bias_for(config: RelativeBiasConfig, queries, keys):
    module = RelativeBias(config, HEADS)
    return jax.jit(lambda q, k: module.apply({"params": table_of(config)}, q, k, method="bias_for"))(queries, keys)


def test_near_offsets_are_told_apart_and_far_ones_are_not():
    offsets = np.array([-50, -10, -9, -3, -2, -1, 0, 1, 2, 3, 9, 10, 50])
    assert buckets_of(offsets, TWO_SIDED).tolist() == [3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7]
    assert buckets_of(offsets, ONE_SIDED).tolist() == [7, 7, 7, 3, 2, 1, *[0] * 7]


@pytest.mark.parametrize("config", [TWO_SIDED, ONE_SIDED], ids=["two sides", "one side"])
def test_every_entry_is_the_one_of_its_offset(config):
    """Positions that start anywhere, and keys of a cache that lie in no order."""
    queries, keys = jnp.array([7, 30]), jnp.array([0, 40, 7, 8, 6, 29])
    wanted = np.zeros((HEADS, 2, 6), np.float32)
    for t, s in np.ndindex(2, 6):
        bucket = buckets_of(np.array([keys[s] - queries[t]]), config)[0]
        wanted[:, t, s] = table_of(config)["embedding"][bucket]
    np.testing.assert_array_equal(bias_for(config, queries, keys), wanted)


@pytest.mark.parametrize("config", [TWO_SIDED, ONE_SIDED], ids=["two sides", "one side"])
def test_a_step_of_decoding_reads_a_row_of_the_whole(config):
    whole = RelativeBias(config, HEADS).apply({"params": table_of(config)}, 20)
    steps = jnp.arange(20)
    assert whole.shape == (HEADS, 20, 20)
    for step in (0, 11, 19):
        np.testing.assert_array_equal(bias_for(config, steps[step : step + 1], steps), whole[:, step : step + 1])


def test_rows_of_a_batch_have_positions_of_their_own():
    queries, keys = jnp.array([[5], [9]]), jnp.stack([jnp.arange(6), jnp.arange(4, 10)])
    batched = bias_for(ONE_SIDED, queries, keys)
    assert batched.shape == (2, HEADS, 1, 6)
    np.testing.assert_array_equal(batched[0], batched[1])
    np.testing.assert_array_equal(batched[0], bias_for(ONE_SIDED, queries[0], keys[0]))


@pytest.mark.parametrize("field, value", [("buckets", 6), ("buckets", 0), ("max_distance", 2)])
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is {value}"):
        TWO_SIDED.replace(**{field: value})
    with pytest.raises(UserError, match="max_distance is 4: must exceed buckets / 2"):
        ONE_SIDED.replace(max_distance=4)


def test_what_was_written_before_it_moved_still_loads():
    written = SSLEncoderConfig(relative_bias=TWO_SIDED).to_json()
    old = {"type": "encoders.relative_bias.RelativeBiasConfig", "buckets": 8, "max_distance": 10}
    assert from_json(written | {"relative_bias": old}).relative_bias == TWO_SIDED
