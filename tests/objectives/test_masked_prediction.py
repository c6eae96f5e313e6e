"""Masked prediction: the loss against a plain calculation, its weights, and that a small model learns by it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import meta

from slm_jax.core.contracts import Loss
from slm_jax.encoders.positional_conv import PositionalConvConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_pretraining import HubertPretrainingConfig
from slm_jax.objectives.masked_prediction import (
    MaskedPrediction,
    MaskedPredictionConfig,
    masked_prediction,
)

N, T, V = 3600, 11, 5
PARAMS: dict[str, dict] = {}

TINY = SSLEncoderConfig(
    front_end="log_mel",
    conv_layers=((16, 3, 1), (16, 3, 2)),
    position=PositionalConvConfig(kernel=5, groups=0, weight_norm=False, form="unfold"),
    layers=1,
    width=16,
    heads=2,
    hidden=32,
    dropout=0.0,
    attention_dropout=0.0,
)


def tiny_batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    lengths = np.array([N, N - 960])
    frames = np.array([T, T - 3])
    return {
        "samples": rng.standard_normal((2, N)).astype(np.float32) * 0.1,
        "sample_mask": np.arange(N) < lengths[:, None],
        "labels": rng.integers(0, V, (2, T)).astype(np.int32),
        "label_mask": np.arange(T) < frames[:, None],
        "span_mask": (rng.random((2, T)) < 0.5) & (np.arange(T) < frames[:, None]),
    }


def built(head: str, **settings) -> tuple[MaskedPrediction, dict]:
    config = HubertPretrainingConfig(encoder=TINY, classes=V, head=head, head_width=8)
    objective = MaskedPredictionConfig(**settings).make(config.make())
    return objective, PARAMS[head]


def fresh_params(head: str) -> dict:
    model = HubertPretrainingConfig(encoder=TINY, classes=V, head=head, head_width=8).make()
    return meta.unbox(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, N))))["params"]


@pytest.fixture(scope="module", autouse=True)
def params_of_both_heads():
    PARAMS.update({head: fresh_params(head) for head in ("linear", "cosine")})


def loss_of(objective: MaskedPrediction, params: dict, batch: dict) -> Loss:
    return jax.jit(lambda params, batch: objective({"params": params}, batch, None))(params, batch)


@pytest.mark.parametrize("unmasked_weight", [0.0, 0.3])
def test_loss_equals_a_plain_calculation(unmasked_weight):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, T, V))
    labels, real, spans = rng.integers(0, V, (2, T)), rng.random((2, T)) < 0.8, rng.random((2, T)) < 0.5
    nll = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    weights = real * np.where(spans, 1.0, unmasked_weight)
    arrays = (jnp.asarray(x) for x in (logits.astype(np.float32), labels, real, spans))
    loss = masked_prediction(*arrays, unmasked_weight)
    np.testing.assert_allclose(loss.terms["prediction"].total, (nll * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(loss.terms["prediction"].count, weights.sum(), rtol=1e-6)
    right = logits.argmax(-1) == labels
    for name, chosen in (("masked", real & spans), ("unmasked", real & ~spans)):
        np.testing.assert_allclose(loss.metrics[f"{name}_nll"][0], nll[chosen].sum(), rtol=1e-5)
        assert [float(x) for x in loss.metrics[f"{name}_accuracy"]] == [right[chosen].sum(), chosen.sum()]


def test_cosine_head_is_cosine_over_temperature():
    objective, params = built("cosine")
    batch = tiny_batch(np.random.default_rng(1))
    logits, out = jax.jit(objective.model.apply)({"params": params}, batch["samples"])
    projected = np.asarray(out.values @ params["final_projection"]["kernel"] + params["final_projection"]["bias"])
    classes = np.asarray(params["class_embedding"])
    lengths = np.linalg.norm(projected, axis=-1)[..., None] * np.linalg.norm(classes, axis=-1)
    np.testing.assert_allclose(logits, projected @ classes.T / lengths / 0.1, atol=1e-4)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_padding_and_unlabelled_frames_have_no_effect(head):
    objective, params = built(head, unmasked_weight=0.3, feature_penalty=1.0)
    batch = tiny_batch(np.random.default_rng(2))
    spoilt = {
        **batch,
        "samples": np.where(batch["sample_mask"], batch["samples"], np.nan).astype(np.float32),
        "labels": np.where(batch["label_mask"], batch["labels"], (batch["labels"] + 1) % V),
    }
    clean, dirty = (loss_of(objective, params, one) for one in (batch, spoilt))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), clean, dirty)


def test_rows_add_up():
    """The sums of a batch are those of its rows: gradient accumulation and sharding rely on it."""
    objective, params = built("linear", unmasked_weight=0.3, feature_penalty=2.0)
    batch = tiny_batch(np.random.default_rng(3))
    sums = [{k: v[i] for k, v in batch.items()} for i in (slice(2), slice(1), slice(1, 2))]
    losses = [loss_of(objective, params, each) for each in sums]
    assert {float(loss.terms["feature_penalty"].weight) for loss in losses} == {2.0}
    whole, *rows = [({n: (t.total, t.count) for n, t in loss.terms.items()}, loss.metrics) for loss in losses]
    jax.tree.map(lambda a, b, c: np.testing.assert_allclose(a, b + c, rtol=1e-4), whole, *rows)


def test_feature_penalty_adds_its_weight_times_the_mean_square():
    batch = tiny_batch(np.random.default_rng(4))
    without, params = built("linear")
    with_penalty, _ = built("linear", feature_penalty=10.0)
    plain, penalised = (loss_of(objective, params, batch) for objective in (without, with_penalty))
    square, frames = plain.metrics["feature_square"]
    expected = plain.value() + 10 * square / frames
    np.testing.assert_allclose(penalised.value(), expected, rtol=1e-5)


def test_training_lowers_the_loss_on_hidden_frames():
    objective, params = built("linear", unmasked_weight=0.5)
    rng = np.random.default_rng(5)
    batch = tiny_batch(rng)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, moments):
        def mean(params):
            loss = objective({"params": params}, batch, jax.random.key(0))
            return loss.value(), loss

        (value, loss), grads = jax.value_and_grad(mean, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), moments, value, loss.metrics["masked_accuracy"]

    moments, values = optimizer.init(params), []
    for _ in range(60):
        params, moments, value, (right, count) = step(params, moments)
        values.append(float(value))
    assert values[-1] < 0.3 * values[0]
    assert right / count > 0.9
