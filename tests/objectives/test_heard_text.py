"""p(text | speech) with attention and CTC: what is counted, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.assemblies.tuned_whisper import TunedWhisperConfig
from slm_jax.core.contracts import Objective
from slm_jax.core.errors import UserError
from slm_jax.objectives.ctc import ctc_nll
from slm_jax.objectives.heard_text import HeardText
from slm_jax.objectives.next_token import NextTokenConfig
from tests.contracts.checks import random_params
from tests.serving.drawn import noise
from tests.shapes import WHISPER

MODEL = TunedWhisperConfig(whisper=WHISPER, classes=5).make()
LENGTHS, ANSWERS = np.array([8, 5, 6]), np.array([3, 2, 4])
"""Ids of each row, and how many of them are the answer."""
PLACES = np.arange(9)
BATCH = {
    "samples": np.stack([noise(0.3, seed) for seed in range(3)]),
    "sample_mask": np.arange(4800) < np.array([[4800], [3000], [4000]]),
    "ids": np.random.default_rng(0).integers(1, 41, (3, 9)).astype(np.int32),
    "mask": LENGTHS[:, None] > PLACES,
    "target_weight": ((LENGTHS[:, None] > PLACES) & ((LENGTHS - ANSWERS)[:, None] <= PLACES)).astype(np.float32),
    "labels": np.array([[1, 2, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]], np.int32),
    "label_mask": np.array([[True, True, True, False], [True, False, False, False], [False] * 4]),
}
ARGUMENTS = tuple(map(jnp.asarray, (BATCH[name] for name in ("samples", "sample_mask", "ids", "mask"))))
PARAMS = random_params(MODEL, jax.random.key(0), *ARGUMENTS, scale=0.3)
OBJECTIVE = HeardText(MODEL, NextTokenConfig(), 0.25)


@pytest.fixture(scope="module")
def losses():
    """The jitted objective."""
    return jax.jit(lambda batch: OBJECTIVE({"params": PARAMS}, batch, None))


@pytest.fixture(scope="module")
def read():
    """Logits of the next token, and of CTC."""

    def whole(model):
        features, spelt, real = model(*ARGUMENTS)
        return model.head(features), spelt, real

    return jax.jit(lambda params: MODEL.apply({"params": params}, method=whole))(PARAMS)


def test_both_terms_are_what_they_say(losses, read):
    logits, spelt, real = read
    found = losses(BATCH)
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    nats = [-log_probs[row, place - 1, BATCH["ids"][row, place]] for row, place in np.argwhere(BATCH["target_weight"])]
    assert len(nats) == ANSWERS.sum() == found.terms["answer"].count
    np.testing.assert_allclose(found.terms["answer"].total, sum(nats), rtol=1e-5)
    letters = ctc_nll(spelt, real, jnp.asarray(BATCH["labels"]), jnp.asarray(BATCH["label_mask"]))
    np.testing.assert_allclose(found.terms["ctc"].total, letters[:2].sum(), rtol=1e-5)
    assert found.terms["ctc"].count == 4 and found.metrics["unfit"] == (0, 2)
    wanted = 0.75 * sum(nats) / len(nats) + 0.25 * letters[:2].sum() / 4
    np.testing.assert_allclose(found.value(), wanted, rtol=1e-5)
    assert isinstance(OBJECTIVE, Objective)


def test_padding_and_the_prefix_are_no_targets(losses):
    ids, samples = np.where(BATCH["mask"], BATCH["ids"], 7), np.where(BATCH["sample_mask"], BATCH["samples"], np.nan)
    np.testing.assert_allclose(
        losses(BATCH | {"ids": ids, "samples": samples}).value(), losses(BATCH).value(), rtol=1e-6
    )
    other = BATCH["ids"].copy()
    other[:, 0] = (other[:, 0] + 1) % 41
    assert losses(BATCH | {"ids": other}).terms["answer"].total != losses(BATCH).terms["answer"].total, "it is read"
    none = losses(BATCH | {"target_weight": 0 * BATCH["target_weight"], "label_mask": 0 * BATCH["labels"] > 0})
    assert none.value() == 0 and none.terms["ctc"].count == 0


def test_rows_add_up_however_a_batch_is_cut(losses):
    whole = losses(BATCH)
    rows = [losses({name: np.repeat(value[i : i + 1], 3, 0) for name, value in BATCH.items()}) for i in range(3)]
    for name in ("answer", "ctc"):
        np.testing.assert_allclose(sum(r.terms[name].total for r in rows) / 3, whole.terms[name].total, rtol=1e-5)


def test_without_classes_attention_is_all():
    plain = TunedWhisperConfig(whisper=WHISPER).make()
    whisper = {"params": {"whisper": PARAMS["whisper"]}}
    found = jax.jit(lambda batch: HeardText(plain, NextTokenConfig())(whisper, batch, None))(BATCH)
    wanted = jax.jit(lambda batch: OBJECTIVE({"params": PARAMS}, batch, None).terms["answer"].total)(BATCH)
    assert found.terms.keys() == {"answer"} and found.terms["answer"].weight == 1
    np.testing.assert_allclose(found.terms["answer"].total, wanted, rtol=1e-6)
    with pytest.raises(UserError, match="classes"):
        TunedWhisperConfig(whisper=WHISPER, classes=1)
