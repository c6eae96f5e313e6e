"""Continuous integrate-and-fire against the loop of its paper: what fires, what it is made of, what is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.objectives.cif import quantity
from slm_jax.token_compression.cif import fired

T, D = 23, 5
LENGTHS = np.array([23, 14, 1, 0])
MASK = np.arange(T) < LENGTHS[:, None]
WEIGHTS = np.random.default_rng(0).uniform(0.05, 0.9, (4, T)).astype(np.float32)
VALUES = np.random.default_rng(1).standard_normal((4, T, D)).astype(np.float32)
LIMITS = np.array([23, 14, 1, 0])


def looped(weights, values, tail):
    """Frame by frame: add up, fire at 1, carry on with what is over."""
    tokens, vector, total = [], np.zeros(D), 0.0
    for weight, value in zip(weights, values, strict=True):
        left = float(weight)
        while total + left >= 1.0:
            part = 1.0 - total
            tokens.append(vector + part * value)
            vector, total, left = np.zeros(D), 0.0, left - part
        vector, total = vector + left * value, total + left
    if (total >= 0.5 if tail == "round" else total > 1e-4 and tail == "keep") or (len(weights) and not tokens):
        tokens.append(vector)
    return np.array(tokens).reshape(-1, D)


def vectors(weights, values, mask=MASK, limits=LIMITS, **options):
    made = fired(jnp.asarray(weights), jnp.asarray(mask), jnp.asarray(limits), mask.shape[1], **options)
    return jnp.einsum("btm,btd->bmd", made.shares, jnp.asarray(values)), made


@pytest.mark.parametrize("tail", ["round", "drop", "keep"])
def test_tokens_are_those_of_the_loop(tail):
    found, made = vectors(WEIGHTS, VALUES, tail=tail)
    for row, length in enumerate(LENGTHS):
        wanted = looped(WEIGHTS[row, :length], VALUES[row, :length], tail)
        assert int(made.counts[row]) == len(wanted)
        np.testing.assert_allclose(found[row, : len(wanted)], wanted, atol=1e-5)
    assert made.counts[3] == 0 and made.counts[2] == 1 and made.counts[0] > 8


def test_with_a_target_just_so_many_fire_and_the_loop_of_scaled_weights_agrees():
    targets = np.array([7, 9, 1, 0])
    found, made = vectors(WEIGHTS, VALUES, targets=jnp.asarray(targets))
    assert made.counts.tolist() == targets.tolist()
    for row in range(3):
        own = WEIGHTS[row, : LENGTHS[row]].astype(np.float64)
        wanted = looped(own * (targets[row] / own.sum()) * (1 + 1e-9), VALUES[row, : LENGTHS[row]], "round")
        np.testing.assert_allclose(found[row, : targets[row]], wanted[: targets[row]], atol=1e-4)


def test_more_than_the_limit_covers_more_and_leaves_nothing_out():
    limits = np.array([3, 2, 1, 0])
    found, made = vectors(WEIGHTS, VALUES, limits=limits)
    assert made.counts.tolist() == limits.tolist()
    scaled = WEIGHTS[0] * 3 / WEIGHTS[0].sum()
    np.testing.assert_allclose(found[0, :3].sum(0), scaled @ VALUES[0], atol=1e-4)


def test_a_row_is_the_same_alone_and_padding_has_no_effect():
    together, _ = vectors(np.where(MASK, WEIGHTS, 0.7), np.where(MASK[..., None], VALUES, 3.0))
    alone, made = vectors(WEIGHTS[1:2, :14], VALUES[1:2, :14], MASK[1:2, :14], LIMITS[1:2])
    count = int(made.counts[0])
    np.testing.assert_allclose(together[1, :count], alone[0, :count], atol=1e-5)


def test_gradients_are_finite_and_lead_the_quantity_to_its_target():
    targets = jnp.array([6, 4, 1, 0])

    def loss(weights):
        values, _ = vectors(weights, VALUES, targets=targets)
        return jnp.square(values).sum() + quantity(jnp.where(MASK, weights, 0), targets).total

    gradient = jax.jit(jax.grad(loss))(jnp.asarray(WEIGHTS))
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).min() > 0
    np.testing.assert_array_equal(np.asarray(gradient)[~MASK], 0)
    term = quantity(jnp.where(MASK, WEIGHTS, 0), targets)
    wanted = np.abs(np.where(MASK, WEIGHTS, 0).sum(1) - np.asarray(targets))[:3].sum()
    assert float(term.total) == pytest.approx(wanted, rel=1e-5) and int(term.count) == 3


def test_an_unknown_tail_is_refused():
    with pytest.raises(UserError, match="tail is 'cut'"):
        vectors(WEIGHTS, VALUES, tail="cut")
