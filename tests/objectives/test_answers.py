"""The loss of answers: the sums by hand, entries that are not real, dropout where nothing is trained, any cut."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import together
from slm_jax.nn.lora import with_lora
from slm_jax.objectives.answers import Answers, following, packed, trains_encoders
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.training.accumulate import accumulated
from tests.assemblies.small_speech_aware import CONFIG, LORA, drawn, drawn_lora
from tests.assemblies.test_speech_aware_lm import RUNS, logits_of, rows, vectors_of
from tests.contracts.checks import assert_close

VARIABLES = drawn()
MODEL = CONFIG.make()


@partial(jax.jit, static_argnums=0)
def loss(config, variables, batch):
    return Answers(config.make(), NextTokenConfig())(variables, batch, None)


def by_hand(config, variables, batch):
    """Nats and right guesses of every counted entry, each from the real one before it."""
    logits = np.asarray(jax.nn.log_softmax(logits_of(config, variables, batch), axis=-1))
    mask = np.asarray(vectors_of(config, variables, batch).mask)
    nats, right = [], []
    for row, place in zip(*np.nonzero(batch["target_weight"]), strict=True):
        before = np.flatnonzero(mask[row, :place])[-1]
        nats.append(-logits[row, before, batch["ids"][row, place]])
        right.append(logits[row, before].argmax() == batch["ids"][row, place])
    return sum(nats), sum(right), len(nats)


def test_next_real_entries_by_hand():
    ids, weight = jnp.array([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]]), jnp.array([[0.0, 1, 2, 3, 4], [1, 1, 1, 1, 1]])
    mask = jnp.array([[True, False, True, True, False], [False, True, True, False, True]])
    targets, counted = following(ids, weight, mask)
    assert targets.tolist() == [[7, 0, 8, 0, 0], [0, 3, 5, 0, 0]]
    assert counted.tolist() == [[2, 0, 3, 0, 0], [0, 1, 1, 0, 0]]


def test_sums_are_those_by_hand():
    batch = rows()
    found, (nats, right, count) = loss(CONFIG, VARIABLES, batch), by_hand(CONFIG, VARIABLES, batch)
    assert float(found.terms["answer"].total) == pytest.approx(nats, rel=1e-5)
    assert (float(found.terms["answer"].count), float(found.metrics["accuracy"][0])) == (count, right)
    assert float(found.metrics["nll"][0]) == pytest.approx(nats, rel=1e-5)


def test_an_answer_right_behind_speech_follows_the_last_real_frame():
    """Where an adapter gives fewer frames than there is room for, the entry before a word may be none."""
    variables, batch = drawn(RUNS), rows(config=RUNS)
    speech = batch["speech_at"] >= 0
    batch["target_weight"] = (batch["mask"] & ~speech).astype(np.float32)  # words behind speech too
    batch["target_weight"][:, 0] = 0
    mask = np.asarray(vectors_of(RUNS, variables, batch).mask)
    behind_a_hole = np.roll(batch["mask"] & ~mask, 1, axis=1) & (batch["target_weight"] > 0)
    assert behind_a_hole.any()
    found, (nats, _, count) = loss(RUNS, variables, batch), by_hand(RUNS, variables, batch)
    assert float(found.terms["answer"].count) == count
    assert float(found.terms["answer"].total) == pytest.approx(nats, rel=1e-5)


def test_features_give_what_samples_give():
    batch = rows()
    hear = jax.jit(lambda *clips: MODEL.apply(VARIABLES, *clips, method="heard"))
    heard = hear(batch["samples"], batch["sample_mask"])
    kept = {name: value for name, value in batch.items() if not name.startswith("sample")}
    shape = batch["samples"].shape[:2]
    kept |= {
        "features": heard.values.reshape(*shape, *heard.values.shape[1:]),
        "feature_mask": heard.mask.reshape(*shape, -1),
    }
    wanted, found = loss(CONFIG, VARIABLES, batch), loss(CONFIG, VARIABLES, kept)
    assert float(found.terms["answer"].total) == pytest.approx(float(wanted.terms["answer"].total), rel=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_large_vocabulary_is_read_in_chunks(frozen):
    """The same sums and gradients, with a language model that is trained and one that is not."""
    batch, parts = rows(), VARIABLES["params"]
    own = {"adapter": parts["adapter"]} if frozen else parts
    kept = {"frozen": {"encoder": parts["encoder"], "lm": parts["lm"]}} if frozen else None

    def total(params, chunk):
        found = Answers(MODEL, NextTokenConfig(chunk=chunk))({"params": params}, batch, None, kept)
        return found.terms["answer"].total, found.metrics

    graded = jax.jit(jax.value_and_grad(total, has_aux=True), static_argnums=1)
    ((loss_of, metrics), gradient), ((wanted, told), whole) = (graded(own, chunk) for chunk in (4, None))
    assert_close(loss_of, wanted, 1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), metrics, told)
    jax.tree.map(lambda a, b: assert_close(a, b, 5e-5), gradient, whole)


def test_what_counts_comes_first():
    features = jnp.arange(8.0).reshape(1, 4, 2)
    found = packed(features, jnp.array([[1, 2, 3, 4]]), jnp.array([[0.0, 1, 0, 2]]))
    assert [x.tolist() for x in found[1:]] == [[[2, 4, 1, 3]], [[1, 2, 0, 0]]]
    assert found[0][0, :2].tolist() == [[2, 3], [6, 7]]


@pytest.mark.parametrize("frozen", [True, False])
def test_encoders_of_which_nothing_is_trained_use_no_dropout(frozen):
    """The adapter and the LM have none here: what differs between two draws is the encoder's."""
    encoder = CONFIG.encoders[0].replace(dropout=0.5)
    model = CONFIG.replace(encoders=(encoder,)).make()
    parts = dict(VARIABLES["params"])
    variables = {"params": parts if not frozen else {name: parts[name] for name in ("adapter", "lm")}}
    kept = {"frozen": {"encoder": parts["encoder"]}} if frozen else None
    objective = jax.jit(
        lambda key: Answers(model, NextTokenConfig())(variables, rows(), key, kept).terms["answer"].total
    )
    first, second = (float(objective(jax.random.key(seed))) for seed in (0, 1))
    assert (first == second) == frozen


def test_lora_on_an_encoder_trains_it():
    assert not trains_encoders({"params": {"adapter": {}}, "lora": {"lm": {}}})
    assert trains_encoders({"params": {"adapter": {}}, "lora": {"encoder": {}}})
    assert trains_encoders({"params": {"adapter": {}, "encoder_1": {}}})
    assert set(together(VARIABLES, {"frozen": {"other": 1}})["params"]) == {"encoder", "adapter", "lm", "other"}


def test_the_gradient_is_the_same_however_the_batch_is_cut():
    """Rows have answers of very different lengths; frozen parts lie apart, LoRA and adapter are trained."""
    model, batch = with_lora(MODEL, LORA), rows()
    own = {"params": {"adapter": VARIABLES["params"]["adapter"]}, "lora": drawn_lora(model)}
    frozen = {"frozen": {name: VARIABLES["params"][name] for name in ("encoder", "lm")}}
    objective = Answers(model, NextTokenConfig())

    def gradient(count):
        micro = {name: jnp.asarray(value).reshape(count, -1, *value.shape[1:]) for name, value in batch.items()}

        def one(owned, batch, key):
            return objective(owned, batch, None, frozen)

        return jax.jit(lambda owned: accumulated(one, owned, micro, jax.random.key(0), False)[::2])(own)

    (whole, pair), (cut, other) = gradient(1), gradient(4)
    assert_close(pair[0] / pair[1], other[0] / other[1], 1e-5)
    jax.tree.map(lambda a, b: assert_close(a, b, 5e-5), cut, whole)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole)) > 1e-3
