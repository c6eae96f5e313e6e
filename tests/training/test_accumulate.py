"""Micro-batches: the same step however a batch is cut, at no forward pass more."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import Loss, Term
from slm_jax.core.errors import UserError
from slm_jax.core.flops import count_flops
from slm_jax.core.trees import matching
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.training.accumulate import accumulated, pruned
from slm_jax.training.step import Statistics, check_players, make_step
from tests.training.cut_run import PLAYER, STEPS, average, batch, initialise, objective, taken
from tests.training.test_step import prepare


@pytest.fixture(scope="module")
def whole():
    return taken(jax.devices()[:1], 1)


@pytest.mark.parametrize("parts, unroll", [(2, True), (4, True), (4, False)])
def test_two_terms_and_statistics_are_the_same_however_a_batch_is_cut(whole, parts, unroll):
    found = taken(jax.devices()[:1], parts, unroll)
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_the_step_is_that_of_the_weighed_means(whole):
    """By hand: the gradient of the loss over the whole batch, and the statistics of its own codes."""
    variables = initialise(jax.random.fold_in(jax.random.key(0), 0))
    for number in range(STEPS):
        given = {name: jnp.asarray(value) for name, value in batch(number).items()}

        def value(params, variables=variables, given=given):
            terms = objective({**variables, "params": params}, given, None).terms
            frames, rows = given["mask"].sum(), given["labelled"].sum()
            return 0.25 * terms["commitment"].total / frames + 3.0 * terms["kind"].total / rows

        loss, grads = jax.value_and_grad(value)(variables["params"])
        np.testing.assert_allclose(whole[f"{number}/loss"], loss, rtol=1e-5)
        moved = jax.tree.map(lambda p, g: p - 0.05 * g, variables["params"], grads)
        variables = {**average(variables, objective(variables, given, None).stats), "params": moved}
    np.testing.assert_allclose(whole["params/up"], variables["params"]["up"], atol=1e-5)
    np.testing.assert_allclose(whole["codebook/codes"], variables["codebook"]["codes"], atol=1e-5)


def test_each_term_is_logged_as_its_own_mean(whole):
    weighed = 0.25 * whole["0/commitment"] + 3.0 * whole["0/kind"]
    assert float(whole["0/loss"]) == pytest.approx(float(weighed), rel=1e-5)


@pytest.mark.parametrize("unroll", [True, False])
def test_counts_of_the_whole_batch_cost_no_forward_pass(unroll):
    given = put_batch(batch(), MeshConfig().make())
    traced, compiled = [], []
    for parts in (1, 4):
        state, _ = prepare([PLAYER], initialise)
        step = make_step([PLAYER], STEPS, mesh=MeshConfig().make(), accumulate=parts, unroll=unroll)
        trace = step.trace(state, given, None, ("net",))
        traced.append(count_flops(trace.jaxpr).total)
        compiled.append(trace.lower().compile().cost_analysis()["flops"])
    assert traced[0] == traced[1] > 0
    if unroll:  # XLA counts the body of a loop once
        assert compiled[1] < 1.15 * compiled[0]


def test_what_a_result_does_not_need_is_left_out():
    def both(x):
        return (jnp.sin(x) @ x.T).sum(), x.sum()

    x = jnp.ones((3, 4))
    assert count_flops(jax.make_jaxpr(pruned(lambda x: both(x)[1], x))(x)).total == 0
    assert count_flops(jax.make_jaxpr(pruned(lambda x: both(x)[0], x))(x)).total == 2 * 3 * 3 * 4
    assert float(pruned(lambda x: both(x)[1], x)(2 * x)) == 24


def test_a_term_that_nothing_was_counted_of_contributes_nothing():
    def terms(owned, batch, key):
        return Loss({"a": Term(owned * batch["x"].sum(), batch["n"].sum()), "b": Term(owned, batch["n"].sum() * 0)}, {})

    for parts in (1, 2):
        micro = {"x": jnp.arange(4.0).reshape(parts, -1), "n": jnp.ones((parts, 4 // parts))}
        grads, loss, (total, count) = accumulated(terms, jnp.array(2.0), micro, jax.random.key(0), True)
        assert float(grads) == pytest.approx(6 / 4)
        assert float(total / count) == pytest.approx(2 * 6 / 4)


def test_a_step_that_is_not_finite_leaves_the_statistics_as_they_were():
    state, step = prepare([PLAYER], initialise)
    before = {name: np.array(leaf) for name, leaf in state.variables["codebook"].items()}
    bad = batch()
    bad["x"][3, 0, 0] = np.nan
    state, output = step(state, put_batch(bad, MeshConfig().make()), None)
    assert not bool(output.finite)
    for name, leaf in before.items():
        np.testing.assert_array_equal(state.variables["codebook"][name], leaf)
    state, output = step(state, put_batch(batch(), MeshConfig().make()), None)
    assert bool(output.finite)
    assert not np.array_equal(state.variables["codebook"]["codes"], before["codes"])


def test_statistics_have_one_writer_and_are_not_lost():
    shapes = jax.eval_shape(initialise, jax.random.key(0))
    twice = [PLAYER, dataclasses.replace(PLAYER, name="other", owns=matching("params/kind"))]
    first = dataclasses.replace(PLAYER, owns=matching("params/up"))
    with pytest.raises(UserError, match=r"'codebook/codes' .*has two owners"):
        check_players([first, twice[1]], shapes)
    with pytest.raises(UserError, match=r"'codebook/codes' .*has two owners"):
        check_players([dataclasses.replace(PLAYER, owns=lambda path: True)], shapes)
    with pytest.raises(UserError, match=r"statistics is 'books': the model has"):
        check_players(
            [dataclasses.replace(PLAYER, statistics=Statistics(collections=("books",), update=average))], shapes
        )
    state, step = prepare([dataclasses.replace(PLAYER, statistics=None)], initialise)
    with pytest.raises(UserError, match=r"player 'net' statistics is False: its objective gives some: True"):
        step(state, put_batch(batch(), MeshConfig().make()), None)
