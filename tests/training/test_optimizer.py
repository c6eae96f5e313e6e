"""Optimizers: schedules by their points, decay by its mask, updates against plain Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.optimizer import REST, GroupConfig, OptimizerConfig

PARAMS = {
    "layer": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full((2,), 2.0)},
    "final_norm": {"scale": jnp.full((2,), 2.0), "offset": jnp.full((2,), 2.0)},
    "layers": {"ln_1": {"weight": jnp.full((4, 2), 2.0)}, "bias": jnp.full((4, 2), 2.0)},
}


def rates(total=100, **changes):
    schedule = OptimizerConfig(learning_rate=1.0, **changes).schedule_for(total)
    return lambda count: float(schedule(count))


@pytest.mark.parametrize(
    "name, middle, end",
    [
        ("constant", 1.0, 1.0),
        ("cosine", 0.55, 0.1),
        ("linear", 0.55, 0.1),
        ("polynomial", 0.9 * 0.25 + 0.1, 0.1),
        ("exponential", 0.1**0.5, 0.1),
        ("inverse_sqrt", (20 / 60) ** 0.5, (20 / 100) ** 0.5),
    ],
)
def test_schedules_pass_through_their_points(name, middle, end):
    rate = rates(schedule=name, warmup_steps=20, final_fraction=0.1)
    assert [rate(0), rate(10), rate(20)] == pytest.approx([0.0, 0.5, 1.0])
    assert [rate(60), rate(100)] == pytest.approx([middle, end], rel=1e-5)


def test_fairseqs_three_stages():
    """Up from a hundredth in a tenth of the steps, four tenths at the peak, down to a twentieth in the rest."""
    rate = rates(schedule="exponential", warmup_steps=10, start_fraction=0.01, hold_steps=40, final_fraction=0.05)

    def theirs(step):
        if step < 10:
            return 0.01 + (1 - 0.01) * step / 10
        return 1.0 if step < 50 else float(np.exp(np.log(0.05) / 50 * (step - 50)))

    steps = range(0, 101, 5)
    assert [rate(step) for step in steps] == pytest.approx([theirs(step) for step in steps], rel=1e-5)


def test_a_rate_may_stay_without_having_risen():
    rate = rates(schedule="linear", hold_steps=50)
    assert [rate(0), rate(49), rate(75), rate(100)] == pytest.approx([1.0, 1.0, 0.5, 0.0])
    with pytest.raises(UserError, match="start_fraction is 2"):
        OptimizerConfig(start_fraction=2.0)


def test_a_run_shorter_than_its_warmup_only_rises():
    rate = rates(total=5, warmup_steps=10)
    assert [rate(0), rate(4)] == pytest.approx([0.0, 0.4])


def test_decay_spares_biases_and_norms_also_when_layers_are_stacked():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, schedule="constant")
    optimizer = config.make(10)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zeros, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["layer"]["kernel"], -0.1 * 0.5 * 2.0)
    spared = [updates["layer"]["bias"], *updates["final_norm"].values(), updates["layers"]["ln_1"]["weight"]]
    for leaf in [*spared, updates["layers"]["bias"]]:
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd", "adafactor"])
def test_updates_equal_those_of_optax(name):
    reference = {
        "adamw": optax.adamw(0.01, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.0),
        "lion": optax.lion(0.01, b1=0.8, b2=0.99, weight_decay=0.0),
        "sgd": optax.sgd(0.01, momentum=0.9),
        "adafactor": optax.chain(
            optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.scale_by_learning_rate(0.01)
        ),
    }[name]
    config = OptimizerConfig(
        name=name, learning_rate=0.01, schedule="constant", betas=(0.8, 0.99), eps=1e-6, momentum=0.9, clip=None
    )
    ours = config.make(10)
    states = [ours.init(PARAMS), reference.init(PARAMS)]
    rng = np.random.default_rng(0)
    for _ in range(3):
        grads = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS)
        mine, states[0] = ours.update(grads, states[0], PARAMS)
        theirs, states[1] = reference.update(grads, states[1], PARAMS)
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_clip_bounds_the_global_norm():
    optimizer = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", clip=0.5).make(10)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), PARAMS)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5, rel=1e-5)


GROUPS = (
    GroupConfig(name="norm", match="params/final_norm/", learning_rate=0.01),
    GroupConfig(name="stack", match="params/layers/", weight_decay=0.25),
)


def test_groups_have_their_own_rates_and_decays_and_one_clip():
    config = OptimizerConfig(
        name="sgd", learning_rate=0.1, schedule="constant", clip=1.0, weight_decay=0.5, no_decay="$^", groups=GROUPS
    )
    optimizer, variables = config.make(10), {"params": PARAMS}
    grads = jax.tree.map(jnp.ones_like, variables)
    updates, _ = optimizer.update(grads, optimizer.init(variables), variables)
    clipped = 1 / np.sqrt(sum(leaf.size for leaf in jax.tree.leaves(PARAMS)))
    found = updates["params"]
    np.testing.assert_allclose(found["layer"]["kernel"], -0.1 * (clipped + 0.5 * 2.0), rtol=1e-5)
    np.testing.assert_allclose(found["final_norm"]["scale"], -0.01 * (clipped + 0.5 * 2.0), rtol=1e-5)
    np.testing.assert_allclose(found["layers"]["ln_1"]["weight"], -0.1 * (clipped + 0.25 * 2.0), rtol=1e-5)


def test_groups_follow_the_schedule_and_are_logged_by_name():
    config = OptimizerConfig(learning_rate=1.0, schedule="linear", groups=GROUPS)
    rates = {name: float(rate(5)) for name, rate in config.rates(10).items()}
    assert rates == pytest.approx({"learning_rate": 0.5, "learning_rate/norm": 0.005, "learning_rate/stack": 0.5})


def test_without_groups_the_state_is_as_it_was():
    chain = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1, mask=lambda params: jax.tree.map(lambda _: True, params)),
        optax.scale_by_learning_rate(optax.constant_schedule(0.1)),
    )
    ours = OptimizerConfig(weight_decay=0.1, schedule="constant").make(10)
    assert jax.tree.structure(ours.init(PARAMS)) == jax.tree.structure(chain.init(PARAMS))


def test_the_first_group_that_matches_wins_and_one_without_leaves_is_refused():
    paths = [f"params/{name}" for name in flatten_by_path(PARAMS)]
    config = OptimizerConfig(groups=GROUPS)
    assert config.group_of("params/layers/bias") == "stack"
    assert config.group_of("params/layer/bias") == REST
    config.check_groups(paths, "lm")
    late = GroupConfig(name="late", match="params/layers/bias", learning_rate=1.0)
    with pytest.raises(UserError, match=r"match of group 'late' is 'params/layers/bias': no leaf of player 'lm'"):
        config.replace(groups=(*GROUPS, late)).check_groups(paths, "lm")
    with pytest.raises(UserError, match="a name of its own"):
        config.replace(groups=(GROUPS[0], GROUPS[0]))
    with pytest.raises(UserError, match=r"learning_rate of group 'x' is 0.0"):
        GroupConfig(name="x", match=".*", learning_rate=0.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "adamm"}, "'adamm'"),
        ({"schedule": "cos"}, "'cos'"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate is 0.0"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
        ({"clip": -1.0}, "optimizer.clip is -1.0"),
        ({"schedule": "exponential"}, "optimizer.final_fraction"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises((UserError, TypeCheckError), match=message):  # the tests' type check sees a Literal first
        OptimizerConfig(**changes)
