"""A decoder with more ids: what stays to the bit, and how the new rows are spread."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.nn.stack import unstack
from slm_jax.sequence_models.expansion import HEAD, TOKENS, expanded, with_rows
from tests.contracts.checks import random_params
from tests.shapes import DECODER

TIED = dataclasses.replace(DECODER, layers=2)
UNTIED = TIED.replace(tied_head=False, embed_width=6)
KEY = jax.random.key(3)
IDS = jnp.array([[3, 31, 0, 7, 7]])


def drawn(config):
    """Parameters whose table and head have another mean and spread in every channel."""
    params = random_params(config.make(), jax.random.key(0), IDS)
    channels = np.arange(config.table_width)
    shifted = {TOKENS: {"embedding": params[TOKENS]["embedding"] * (1 + channels) + channels - 2}}
    if not config.tied_head:
        shifted[HEAD] = params[HEAD] * (1 + channels[:, None]) - channels[:, None]
    return {**params, **shifted}


def features_and_logits(config, params):
    """What the head reads, and what it gives."""
    model = config.make()

    def run(params):
        features = model.apply({"params": params}, IDS, method="hidden")
        return features, model.apply({"params": params}, features, method="head")

    return jax.jit(run)(params)


@pytest.mark.parametrize("config", [TIED, UNTIED])
@pytest.mark.parametrize("kind", ["jax", "numpy"])
def test_old_rows_and_features_stay_to_the_bit(config, kind):
    params = drawn(config)
    if kind == "numpy":
        params = jax.tree.map(np.asarray, params)
    larger, grown = expanded(config, params, 3, KEY, multiple=8)
    assert larger == config.replace(vocabulary=40)
    before, after = flatten_by_path(params), flatten_by_path(grown)
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        assert isinstance(after[path], np.ndarray if kind == "numpy" else jax.Array)
        kept = after[path][: len(leaf)] if path.endswith("embedding") else after[path][..., : leaf.shape[-1]]
        assert after[path].dtype == leaf.dtype and np.array_equal(kept, leaf)
    (features, found), (wanted_features, wanted) = (
        features_and_logits(*one) for one in ((larger, grown), (config, params))
    )
    np.testing.assert_array_equal(features, wanted_features)
    assert found.shape[-1] == 40
    # a product of another width may add in another order: last digits
    np.testing.assert_allclose(found[..., :32], wanted, rtol=1e-6, atol=1e-6)
    assert np.isfinite(found).all() and float(jnp.abs(found[..., 32:]).min()) > 0


def test_new_rows_have_the_mean_and_spread_of_every_channel():
    rng = np.random.default_rng(0)
    mean, spread = np.array([-3.0, 0.0, 5.0]), np.array([0.1, 1.0, 4.0])
    table = (mean + spread * rng.standard_normal((500, 3))).astype(np.float32)
    new = with_rows(table, 20_500, KEY)[500:]
    np.testing.assert_allclose(new.mean(0), table.mean(0), atol=5 * spread.max() / np.sqrt(20_000))
    np.testing.assert_allclose(new.std(0), table.std(0), rtol=0.03)
    assert len(np.unique(new[:, 0])) > 19_000 and abs(np.corrcoef(new.T)[0, 1]) < 0.05


def test_the_head_has_columns_of_its_own_statistics():
    params = drawn(UNTIED)
    _, grown = expanded(UNTIED, params, 4000, KEY)
    for old, new in ((params[TOKENS]["embedding"], grown[TOKENS]["embedding"]), (params[HEAD].T, grown[HEAD].T)):
        np.testing.assert_allclose(new[32:].mean(0), old.mean(0), atol=0.1 * float(old.std(0).max()))
        np.testing.assert_allclose(new[32:].std(0), old.std(0), rtol=0.1)
    assert not np.allclose(grown[TOKENS]["embedding"][32:40], grown[HEAD].T[32:40])


def test_keys_tell_apart_and_layers_may_lie_unstacked_in_bfloat16():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), unstack(drawn(TIED)))
    config, grown = expanded(TIED, params, 1, KEY)
    assert config.vocabulary == 33 and grown[TOKENS]["embedding"].dtype == jnp.bfloat16
    assert all(a is b for a, b in zip(*(jax.tree.leaves(one["blocks"]) for one in (params, grown)), strict=True))
    row = np.asarray(grown[TOKENS]["embedding"][32], np.float32)
    again, other = (expanded(TIED, params, 1, key)[1][TOKENS]["embedding"][32] for key in (KEY, jax.random.key(4)))
    assert np.array_equal(np.asarray(again, np.float32), row) and not np.array_equal(np.asarray(other, np.float32), row)


def test_what_does_not_fit_is_refused():
    params = drawn(TIED)
    with pytest.raises(UserError, match="extra is 0: new ids, at least 1"):
        expanded(TIED, params, 0, KEY)
    with pytest.raises(UserError, match="multiple is 0"):
        expanded(TIED, params, 1, KEY, multiple=0)
    with pytest.raises(UserError, match=r"tokens/embedding is \(32, 8\): this config has \(31, 8\)"):
        expanded(TIED.replace(vocabulary=31), params, 1, KEY)
    with pytest.raises(UserError, match=r"head_kernel is None: this config has \(8, 32\)"):
        expanded(TIED.replace(tied_head=False), params, 1, KEY)
