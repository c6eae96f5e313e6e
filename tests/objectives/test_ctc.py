"""CTC against all paths written out, and what becomes of rows that do not fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import Objective
from slm_jax.nn.linear import Linear
from slm_jax.objectives.ctc import CTCConfig, ctc_loss, ctc_nll
from tests.token_compression.ctc_paths import FRAMES, LABELS, log_softmax, nll, rows

compiled = jax.jit(ctc_nll, static_argnames=("blank", "zero_infinity"))
FITS = np.array([True, True, True, True, False, True, False])


def arguments(**changes) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(value) for value in (rows() | changes).values())


@pytest.mark.parametrize("blank", [0, 2])
def test_it_is_the_sum_over_all_paths(blank):
    batch = rows()
    turned = {"logits": batch["logits"][..., [1, 2, 0]], "labels": batch["labels"] - 1} if blank else {}
    found = compiled(*arguments(**turned), blank=blank)
    wanted = [nll(log_softmax(batch["logits"][i, :n]), LABELS[i]) for i, n in enumerate(FRAMES)]
    assert np.isfinite(wanted).tolist() == FITS.tolist()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_row_that_does_not_fit_gives_inf_or_nothing_and_no_gradient():
    logits, *rest = arguments()
    assert compiled(logits, *rest)[~FITS].tolist() == [np.inf, np.inf]
    assert compiled(logits, *rest, zero_infinity=True)[~FITS].tolist() == [0, 0]
    for zero in (False, True):
        gradient = jax.jit(jax.grad(lambda x, zero=zero: ctc_nll(x, *rest, zero_infinity=zero).sum()))(logits)
        assert np.isfinite(gradient).all()
        assert not np.asarray(gradient[~FITS]).any() and not np.asarray(gradient)[~rows()["frame_mask"]].any()
        assert np.asarray(jnp.abs(gradient[FITS]).sum((1, 2)) > 0).all()


def test_gradients_are_those_of_differences():
    logits, *rest = arguments()
    total = jax.jit(lambda x: ctc_nll(x, *rest, zero_infinity=True).sum())
    gradient = jax.jit(jax.grad(total))(logits)
    rng = np.random.default_rng(1)
    for _ in range(5):
        way = jnp.where(rest[0][..., None], rng.standard_normal(logits.shape), 0.0).astype(jnp.float32)
        steps = jnp.where(rest[0][..., None], logits, 0.0) + jnp.array([-1e-2, 1e-2])[:, None, None, None] * way
        slope = (total(steps[1]) - total(steps[0])) / 2e-2
        assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-2, abs=1e-3)


def test_certainty_of_the_wrong_thing_gives_finite_gradients():
    logits, *rest = arguments()
    sure = jnp.where(rest[0][..., None], 1e4 * jnp.array([1.0, 0.0, -1.0]), jnp.nan)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: ctc_nll(x, *rest, zero_infinity=True).sum()))(sure)
    assert np.isfinite(value) and value > 1e4 and np.isfinite(gradient).all()
    never = logits.at[0, :, 1].set(-jnp.inf)
    assert compiled(never, *rest)[0] == np.inf
    gradient = jax.jit(jax.grad(lambda x: ctc_nll(x, *rest).sum()))(never)
    assert np.isfinite(gradient).all() and not np.asarray(gradient[0]).any()


def test_a_row_is_the_same_alone_and_nan_in_real_frames_is_seen():
    logits, frame_mask, labels, label_mask = arguments()
    together = compiled(logits, frame_mask, labels, label_mask)
    alone = ctc_nll(logits[:1, :5], frame_mask[:1, :5], labels[:1, :2], label_mask[:1, :2])
    assert float(alone[0]) == pytest.approx(float(together[0]), rel=1e-6)
    broken = compiled(logits.at[0, 1, 2].set(jnp.nan), frame_mask, labels, label_mask)
    assert np.isnan(broken[0]) and np.array_equal(broken[1:], together[1:])


def test_the_loss_counts_the_labels_of_rows_that_fit():
    logits, frame_mask, labels, label_mask = arguments()
    loss = jax.jit(ctc_loss)(logits, frame_mask, labels, label_mask)
    term, each = loss.terms["ctc"], compiled(logits, frame_mask, labels, label_mask)
    asked = FITS & np.asarray(label_mask.any(1))  # a row without labels counts for nothing
    assert float(term.count) == 2 + 2 + 1 + 3
    assert float(term.total) == pytest.approx(float(each[asked].sum()), rel=1e-6)
    assert [float(x) for x in loss.metrics["unfit"]] == [2, 6]
    silent = np.nan_to_num(rows()["logits"]).argmax(-1)[rows()["frame_mask"]] == 0
    assert [float(x) for x in loss.metrics["blanks"]] == [silent.sum(), sum(FRAMES)]


class Blocks(nn.Module):
    """Every four samples are a frame."""

    @nn.compact
    def __call__(self, samples, mask, *, deterministic):
        frames = jnp.asarray(samples).reshape(samples.shape[0], -1, 4)
        frames = nn.Dropout(0.5)(frames, deterministic=deterministic)
        return Linear(3, name="head")(frames), jnp.asarray(mask).reshape(mask.shape[0], -1, 4).all(-1)


def test_the_objective_is_the_loss_of_what_the_model_gives():
    batch = rows()
    samples = np.random.default_rng(2).standard_normal((len(LABELS), 24)).astype(np.float32)
    given = {"samples": samples, "sample_mask": np.repeat(batch["frame_mask"], 4, axis=1)}
    given |= {name: batch[name] for name in ("labels", "label_mask")}
    model = Blocks()
    variables = model.init(jax.random.key(0), samples, given["sample_mask"], deterministic=True)
    objective = CTCConfig().make(model)
    assert isinstance(objective, Objective)
    found = jax.jit(objective)(variables, given, None)
    logits, mask = model.apply(variables, samples, given["sample_mask"], deterministic=True)
    wanted = ctc_loss(logits, mask, jnp.asarray(batch["labels"]), jnp.asarray(batch["label_mask"]))
    assert float(found.value()) == pytest.approx(float(wanted.value()), rel=1e-6)
    dropped = jax.jit(objective)(variables, given, jax.random.key(1))
    assert float(dropped.value()) != pytest.approx(float(found.value()), rel=1e-3)
