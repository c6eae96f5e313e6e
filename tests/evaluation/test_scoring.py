import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.scoring import nats_per_token, sequence_log_probs
from slm_jax.sequence_models.decoder_config import DecoderConfig
from tests.contracts.checks import random_params

MODEL = DecoderConfig(vocabulary=11, layers=1, width=16, heads=2, hidden=32, positions="rope", init_scale=0.5).make()
PARAMS = random_params(MODEL, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
SEQUENCES = [np.random.default_rng(n).integers(0, 11, n).astype(np.int32) for n in (2, 7, 130, 5)]


def test_every_token_is_scored_given_those_before_it():
    found = sequence_log_probs(MODEL, PARAMS, SEQUENCES)
    for ids, scores in zip(SEQUENCES, found, strict=True):
        logits = np.asarray(jax.jit(MODEL.apply)({"params": PARAMS}, jnp.asarray(ids[None])))[0]
        wanted = jax.nn.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(scores, wanted, atol=1e-4)


def test_the_mean_is_over_tokens_not_sequences():
    scores = np.concatenate(sequence_log_probs(MODEL, PARAMS, SEQUENCES))
    assert len(scores) == sum(len(ids) - 1 for ids in SEQUENCES)
    np.testing.assert_allclose(nats_per_token(MODEL, PARAMS, SEQUENCES), -scores.mean(), rtol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "rope"])
def test_padding_stays_within_the_positions_of_a_model(positions):
    model = MODEL.config.replace(positions=positions, max_positions=150).make()
    params = random_params(model, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    longest = np.arange(150, dtype=np.int32) % 11  # more than one bucket, less than two
    found = sequence_log_probs(model, params, [longest, longest[:3]])
    logits = np.asarray(jax.jit(model.apply)({"params": params}, jnp.asarray(longest[None])))[0]
    np.testing.assert_allclose(found[0], jax.nn.log_softmax(logits)[np.arange(149), longest[1:]], atol=1e-4)
    with pytest.raises(UserError, match="length of sequence 1 is 151: this model has 150 positions"):
        sequence_log_probs(model, params, [longest, np.zeros(151, np.int32)])
