"""One step: what each player moves, how micro-batches add up, what a NaN leaves alone."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.contracts import SHOWN, Loss, Term
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path, matching
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.spikes import nothing_seen
from slm_jax.training.state import abstract_state, new_state
from slm_jax.training.step import Player, acting, check_players, make_step, optimizer_init, trained_leaves
from tests.training.small_run import SeededBatches, initialise, plain_objective, player

STEPS = 10


def prepare(players, init=initialise, ema_decay=None, steps=STEPS, spike=None, **settings):
    """(state, step) of a run on one device; the step lets those players move whose turn it is."""
    mesh = MeshConfig().make()
    opt = optimizer_init(players, steps)
    memory = None if spike is None else lambda: nothing_seen(spike, [player.name for player in players])
    parts = {"ema": None if ema_decay is None else trained_leaves(players), "memory": memory}
    _, shardings = abstract_state(init, opt, mesh=mesh, rules="ddp", **parts)
    state = new_state(init, opt, key=jax.random.key(0), shardings=shardings, **parts)
    step = make_step(players, steps, mesh=mesh, ema_decay=ema_decay, shardings=shardings, spike=spike, **settings)
    return state, lambda state, batch, frozen: step(state, batch, frozen, acting(players, int(state.step)))


def batch_at(index=0, **changes):
    batches = SeededBatches(**changes)
    batches.next = index
    return put_batch(next(batches), MeshConfig().make())


def arrays(tree):
    return {path: np.array(leaf) for path, leaf in flatten_by_path(tree).items()}


@pytest.mark.parametrize("parts, unroll", [(2, True), (4, True), (4, False)])
def test_accumulation_equals_the_whole_batch(parts, unroll):
    plain = player(objective=plain_objective, optimizer=OptimizerConfig(learning_rate=0.1, name="sgd"))
    batch = batch_at()
    counts = np.asarray(batch["mask"]).reshape(-1, parts).sum(0)
    assert len(set(counts.tolist())) > 1, "the micro-batches must hold different numbers of real rows"
    results = []
    for accumulate in (1, parts):
        state, step = prepare([plain], accumulate=accumulate, unroll=unroll)
        state, output = step(state, batch, None)
        results.append((arrays(state.params), {n: float(a) / float(b) for n, (a, b) in output.sums.items()}))
    for path, whole in results[0][0].items():
        np.testing.assert_allclose(results[1][0][path], whole, atol=1e-6, err_msg=path)
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5)


def test_the_gradient_is_that_of_the_mean_over_real_rows():
    sgd = OptimizerConfig(learning_rate=0.1, name="sgd", schedule="constant", clip=None)
    state, step = prepare([player(objective=plain_objective, optimizer=sgd)])
    before, batch = arrays(state.params), batch_at()

    def mean(params):
        return plain_objective(
            {"params": params, "averages": {"mean": jnp.zeros(16)}}, batch, jax.random.key(0)
        ).value()

    grads = arrays(jax.grad(mean)(jax.tree.map(jnp.array, state.params)))
    after = arrays(step(state, batch, None)[0].params)
    for path, grad in grads.items():
        np.testing.assert_allclose(after[path], before[path] - 0.1 * grad, atol=1e-6, err_msg=path)


class Duel(nn.Module):
    """A generator and a critic under one roof."""

    def setup(self):
        self.generator = nn.Dense(4, name="generator")
        self.critic = nn.Dense(1, name="critic")

    def __call__(self, x):
        return self.critic(self.generator(x))


def duel_init(key):
    return Duel().init(key, jnp.zeros((1, 8)))


def duel_loss(sign):
    def objective(variables, batch, rng, frozen=None):
        score = sign * Duel().apply(variables, batch["x"])
        return Loss({"score": Term(nn.softplus(score).sum(), jnp.array(score.size))}, {})

    return objective


def duel_players(**critic):
    sgd = OptimizerConfig(learning_rate=0.1, name="sgd", schedule="constant")
    return [
        Player(name="critic", objective=duel_loss(1), optimizer=sgd, owns=matching("params/critic/"), **critic),
        Player(name="generator", objective=duel_loss(-1), optimizer=sgd, owns=matching("params/generator/")),
    ]


@pytest.mark.parametrize("mover", ["critic", "generator"])
def test_a_player_touches_only_its_own_leaves(mover):
    alone = [p for p in duel_players() if p.name == mover]
    state, step = prepare(alone, duel_init)
    before = arrays(state.params)
    after = arrays(step(state, batch_at(), None)[0].params)
    moved = {path.split("/")[0] for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {mover}


def test_a_later_player_sees_what_an_earlier_one_left():
    both, step = prepare(duel_players(), duel_init)
    critic_only, critic_step = prepare(duel_players()[:1], duel_init)
    batch = batch_at()
    critic_only, _ = critic_step(critic_only, batch, None)

    def generator_loss(params):
        return duel_loss(-1)({"params": params}, batch, None).value()

    grads = arrays(jax.grad(generator_loss)(critic_only.params))
    before = arrays(both.params)
    after = arrays(step(both, batch, None)[0].params)
    path = "generator/kernel"
    np.testing.assert_allclose(after[path], before[path] - 0.1 * grads[path], atol=1e-6)


def showing_players(shows, made):
    """A critic and a generator that look at the same, which is made once where it is shown; `made`: a count of that."""

    def spoken(variables, batch):
        if SHOWN in batch:
            return batch[SHOWN][0]
        made.append(1)
        return nn.Dense(4).apply({"params": variables["params"]["generator"]}, batch["x"])

    def scored(sign, variables, batch, rng, frozen=None):
        heard = spoken(variables, batch)
        heard = jax.lax.stop_gradient(heard) if sign > 0 else heard
        score = sign * nn.Dense(1).apply({"params": variables["params"]["critic"]}, heard)
        count = jnp.array(float(score.size))
        size = jnp.square(variables["params"]["generator"]["kernel"]).sum()  # what looks at the weights themselves
        terms = {"score": Term(nn.softplus(score).sum(), count), "size": Term(size * count, count, 0.1)}
        return Loss(terms, {})

    def show(variables, batch, rng, frozen):
        return spoken(variables, batch), None

    critic, generator = duel_players()
    critic = dataclasses.replace(critic, objective=partial(scored, 1))
    return [critic, dataclasses.replace(generator, objective=partial(scored, -1), shows=show if shows else None)]


@pytest.mark.parametrize("accumulate, times", [(1, 1), (2, 6)])
def test_what_a_player_shows_is_made_once_and_both_learn_as_without(accumulate, times):
    batch, after = batch_at(), []
    for shows in (False, True):
        made = []
        state, step = prepare(showing_players(shows, made), duel_init, accumulate=accumulate)
        state, output = step(state, batch, None)
        after.append((arrays(state.params), {name: float(total) for name, (total, _) in output.sums.items()}))
    assert len(made) == times, "where a batch is cut each player makes it again, once more to count"
    for path, alone in after[0][0].items():
        np.testing.assert_allclose(after[1][0][path], alone, atol=1e-6, err_msg=path)
    assert after[1][1] == pytest.approx(after[0][1], rel=1e-5)


def test_one_player_shows_at_most():
    players = [dataclasses.replace(player, shows=lambda *_: ((), None)) for player in duel_players()]
    with pytest.raises(UserError, match=r"players that show is \['critic', 'generator'\]"):
        check_players(players, duel_init(jax.random.key(0)))


def test_players_rest_between_their_turns():
    state, step = prepare(duel_players(every=2, start=1), duel_init)
    moves = []
    for index in range(5):
        before = arrays(state.params)
        state, output = step(state, batch_at(index), None)
        moves.append(not np.array_equal(before["critic/kernel"], np.asarray(state.params["critic"]["kernel"])))
        assert ("critic/loss" in output.sums) == moves[-1]
        assert output.sums["generator/loss"][1] > 0
    assert moves == [False, True, False, True, False]


def test_a_step_with_nan_changes_nothing_but_the_step_number():
    state, step = prepare([player()], ema_decay=0.5)
    state, output = step(state, batch_at(0), None)
    assert bool(output.finite)
    before = {name: arrays(tree) for name, tree in state.trees().items() if name != "train"}
    before["opt"] = arrays(state.opt)
    state, output = step(state, batch_at(1, bad=(1,)), None)
    assert not bool(output.finite)
    assert int(state.step) == 2
    after = {"params": state.params, "ema": state.ema["params"], "opt": state.opt}
    after["collections"] = {"averages": state.variables["averages"]}
    for name, tree in after.items():
        for path, leaf in arrays(tree).items():
            np.testing.assert_array_equal(leaf, before[name][path], err_msg=f"{name}/{path}")


def test_ema_is_the_decayed_average_and_the_rate_is_reported():
    state, step = prepare([player()], ema_decay=0.75)
    slow = arrays(state.ema["params"])
    for index in range(3):
        state, output = step(state, batch_at(index), None)
        fast = arrays(state.params)
        slow = {path: 0.75 * slow[path] + 0.25 * fast[path] for path in slow}
    for path, leaf in arrays(state.ema["params"]).items():
        np.testing.assert_allclose(leaf, slow[path], atol=1e-6)
    rate = player().optimizer.schedule_for(STEPS)(2)
    assert float(output.sums["learning_rate"][0]) == pytest.approx(float(rate))


def test_frozen_values_reach_the_objective_and_dropout_differs_between_steps():
    state, step = prepare([player(optimizer=OptimizerConfig(learning_rate=1e-12))])
    losses = []
    for offset in (None, None, 9.0):
        state, output = step(state, batch_at(0), offset)
        losses.append(float(output.sums["loss"][0]))
    assert losses[0] != losses[1], "a mask of its own in every step"
    assert losses[2] > 5 * losses[1]


def test_players_are_checked():
    shapes = jax.eval_shape(duel_init, jax.random.key(0))
    first, second = duel_players()
    with pytest.raises(UserError, match="no parameter"):
        check_players([dataclasses.replace(first, owns=matching("nothing/"))], shapes)
    with pytest.raises(UserError, match="has two owners"):
        check_players([first, dataclasses.replace(second, owns=matching(".*"))], shapes)
    with pytest.raises(UserError, match="different names"):
        check_players([first, first], shapes)
    with pytest.raises(UserError, match=r"critic.chance is 0"):
        check_players([dataclasses.replace(first, chance=0.0)], shapes)
    with pytest.raises(UserError, match=r"critic.every is 0"):
        check_players([dataclasses.replace(first, every=0)], shapes)
    check_players([first, second], shapes)


def test_a_player_moves_by_chance_as_the_number_of_the_step_decides():
    one = dataclasses.replace(player(), chance=2 / 3, start=10, every=2)
    other = dataclasses.replace(one, name="other")
    turns, others = ([each.moves_at(step) for step in range(6010)] for each in (one, other))
    assert turns == [dataclasses.replace(one).moves_at(step) for step in range(6010)]
    assert not any(turns[:10]) and not any(turns[11::2])
    assert abs(np.mean(turns[10::2]) - 2 / 3) < 0.03 and 0.2 < np.mean(np.array(turns) & np.array(others)) / 0.5 < 0.6
    assert one.updates(310) == 100
