import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.objectives.sequence_to_sequence import SequenceToSequence
from slm_jax.sequence_models.t5 import t5
from tests.contracts.checks import assert_close, random_params

MODEL = t5(vocabulary=11, layers=1, width=8, heads=2, head_width=4, hidden=8).make()
IDS, WRITTEN, TARGETS = (jax.random.randint(jax.random.key(k), (3, 5), 0, 11) for k in range(3))
MASK, COUNTED = (jnp.arange(5) < jnp.array(lengths)[:, None] for lengths in ([5, 2, 3], [1, 5, 4]))
BATCH = {"ids": IDS, "mask": MASK, "decoder_ids": WRITTEN, "targets": TARGETS, "target_mask": COUNTED}
PARAMS = {"params": random_params(MODEL, jax.random.key(3), IDS, WRITTEN)}


def loss(batch, **config):
    return SequenceToSequence(MODEL, NextTokenConfig(**config))(PARAMS, batch, None)


def test_it_is_the_cross_entropy_of_the_counted_targets():
    found = loss(BATCH)
    logits = MODEL.apply(PARAMS, IDS, WRITTEN, MASK, COUNTED)
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(TARGETS)[..., None], -1)[..., 0]
    wanted = nll[np.asarray(COUNTED)]
    assert found.terms["tokens"].count == len(wanted) == 10
    assert_close(found.terms["tokens"].total, wanted.sum(), 1e-5)
    assert_close(found.metrics["nll"][0], wanted.sum(), 1e-5)


def test_chunks_give_the_same_and_what_is_not_real_says_nothing():
    whole = loss(BATCH).terms["tokens"].total
    assert_close(loss(BATCH, chunk=2).terms["tokens"].total, whole, 1e-5)
    spoilt = BATCH | {"ids": jnp.where(MASK, IDS, 7), "targets": jnp.where(COUNTED, TARGETS, 3)}
    assert_close(loss(spoilt).terms["tokens"].total, whole, 1e-6)
    assert abs(float(loss(BATCH | {"ids": IDS[::-1]}).terms["tokens"].total - whole)) > 1e-3
