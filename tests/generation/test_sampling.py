import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.generation.sampling import SamplingConfig, draw, shape_logits

B, V = 4, 50
LOGITS = 2.0 * np.random.default_rng(0).normal(size=(B, V)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, V, (B, 12))


def shaped(config: SamplingConfig, count: int = 0) -> np.ndarray:
    seen = np.zeros((B, V), bool)
    seen[np.arange(B)[:, None], IDS] = True
    return np.asarray(jax.jit(lambda x, s: shape_logits(x, s, jnp.int32(count), config))(LOGITS, seen))


def test_the_end_waits_for_the_least_number_of_tokens():
    config = SamplingConfig(end=3, min_new=2)
    assert np.isneginf(shaped(config, count=1)[:, 3]).all()
    np.testing.assert_array_equal(shaped(config, count=2), LOGITS)


def test_forbidden_ids_are_never_drawn():
    config = SamplingConfig(forbidden=(2, 7), temperature=0.0)
    logits = jnp.asarray(LOGITS).at[:, 7].set(100.0)
    token = draw(shape_logits(logits, None, jnp.int32(0), config), jax.random.split(jax.random.key(0), B), config)
    without = np.where(np.isin(np.arange(V), (2, 7)), -np.inf, LOGITS)
    assert token.tolist() == without.argmax(1).tolist()


def test_draws_follow_the_distribution_and_each_rows_own_key():
    config = SamplingConfig()
    probabilities = jnp.array([0.5, 0.3, 0.2])
    keys = jax.random.split(jax.random.key(0), 4000)
    tokens = np.asarray(draw(jnp.broadcast_to(jnp.log(probabilities), (4000, 3)), keys, config))
    np.testing.assert_allclose(np.bincount(tokens, minlength=3) / 4000, probabilities, atol=0.03)
    alone = draw(jnp.log(probabilities)[None], keys[17:18], config)
    assert int(alone[0]) == tokens[17]


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"max_new": 3, "min_new": 4}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(UserError, match=list(wrong)[-1]):
        SamplingConfig(**wrong)
