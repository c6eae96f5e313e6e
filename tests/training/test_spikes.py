"""Loss spikes: what is one, what a batch that is left out leaves alone, when a run gives up, how it goes on."""

import dataclasses
import logging
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.spikes import SpikeConfig, judge, limit, nothing_seen
from slm_jax.training.stops import Interrupted, TooManySpikes, TrainingDiverged
from tests.training.small_run import SeededBatches, digest, player, start
from tests.training.test_step import arrays, batch_at, duel_init, duel_players, prepare

POLICY = SpikeConfig(window=8, least=4, sigmas=6.0, watch=("loss", "grad_norm"), stop_after=3)
LOOSE = POLICY.replace(sigmas=100.0)  # eight losses of small batches deviate a lot
CONFIG = TrainConfig(steps=30, ema_decay=0.9, log_every=5, checkpoint_every_steps=10, spike=LOOSE)


class Poisoned(SeededBatches):
    """The targets of the batches `at` are far away; this process gets a SIGTERM with batch `stop_at`."""

    def __init__(self, at: tuple[int, ...], stop_at: int | None = None) -> None:
        super().__init__()
        self.at, self.stop_at = at, stop_at

    def __next__(self):
        poison = self.next in self.at
        if self.next == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        batch = super().__next__()
        return batch | {"y": batch["y"] + 1000} if poison else batch


def test_the_limit_is_median_and_deviation_of_what_was_taken():
    rng = np.random.default_rng(0)
    memory = nothing_seen(POLICY, ["net"])
    taken = []
    yes = jnp.array(True)
    step = jax.jit(lambda memory, value: judge(POLICY, memory, {"net": {"loss": value, "grad_norm": value}}, yes))
    for number in range(20):
        value = 50.0 if number in (3, 11, 12) else float(rng.normal(2.0, 0.1))
        last = np.asarray(taken[-8:])
        wanted = np.inf
        if len(taken) >= 4:
            wanted = np.median(last) + 6 * 1.4826 * np.median(np.abs(last - np.median(last)))
        assert float(limit(POLICY, memory["players"]["net"], "loss")) == pytest.approx(wanted, rel=1e-5)
        verdict, memory = step(memory, value)
        assert bool(verdict.left_out) == (value > wanted) == (number in (11, 12)), number
        if not verdict.left_out:
            taken.append(value)
    assert (int(memory["in_all"]), int(memory["in_a_row"])) == (2, 0)
    assert int(memory["players"]["net"]["taken"]) == 18


def test_values_that_hardly_differ_are_no_spikes_and_what_is_not_finite_is_not_judged():
    memory = nothing_seen(POLICY, ["net"])
    for value in (1.0, 1.0, 1.0, 1.0, 1.0 + 1e-6):
        values = {"net": {"loss": jnp.float32(value), "grad_norm": jnp.float32(0)}}
        verdict, memory = judge(POLICY, memory, values, jnp.array(True))
        assert not bool(verdict.left_out)
    before = jax.tree.map(np.asarray, memory)
    bad = {"net": {"loss": jnp.float32(np.inf), "grad_norm": jnp.float32(0)}}
    verdict, memory = judge(POLICY, memory, bad, jnp.array(False))
    assert not bool(verdict.left_out)
    jax.tree.map(np.testing.assert_array_equal, memory, before)


def test_a_spike_changes_nothing_but_step_number_and_memory():
    state, step = prepare([player()], ema_decay=0.5, spike=LOOSE)
    for index in range(4):
        state, output = step(state, batch_at(index), None)
        assert not bool(output.verdict.left_out)
    before = {name: arrays(tree) for name, tree in carried(state).items()}
    poisoned = batch_at(4)
    state, output = step(state, poisoned | {"y": poisoned["y"] + 1000}, None)
    assert bool(output.verdict.left_out)
    assert bool(output.finite)
    assert int(state.step) == 5
    for name, tree in carried(state).items():
        for path, leaf in arrays(tree).items():
            np.testing.assert_array_equal(leaf, before[name][path], err_msg=f"{name}/{path}")
    state, output = step(state, batch_at(5), None)
    assert not bool(output.verdict.left_out)
    assert not np.array_equal(arrays(state.params)["first/kernel"], before["params"]["first/kernel"])


def carried(state):
    return {"params": state.params, "ema": state.ema, "opt": state.opt, "variables": state.variables}


def test_a_player_that_spikes_holds_back_the_others_and_one_that_rests_remembers():
    quiet = SpikeConfig(window=4, least=2, watch=("loss",))
    state, step = prepare(duel_players(every=2), duel_init, spike=quiet)
    for index in range(4):
        state, output = step(state, batch_at(index), None)
    assert [int(state.spikes["players"][name]["taken"]) for name in ("critic", "generator")] == [2, 4]
    assert set(output.verdict.limits) == {"generator/loss"}, "the critic rests in this step"
    low = state.spikes["players"]["critic"] | {"loss": jnp.full((4,), -100.0)}
    state = dataclasses.replace(state, spikes=state.spikes | {"players": state.spikes["players"] | {"critic": low}})
    before = arrays(state.params)
    state, output = step(state, batch_at(4), None)
    assert bool(output.verdict.left_out)
    for path, leaf in arrays(state.params).items():
        np.testing.assert_array_equal(leaf, before[path], err_msg=path)


def test_a_run_leaves_the_poisoned_batch_out_says_so_and_ends_as_if_it_had_not_been_drawn(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        state = start(tmp_path, CONFIG, batches=Poisoned((22,)))
    assert "step 23 left out: grad_norm" in caplog.text
    assert caplog.text.count("left out") == 1
    assert str(list(range(22 * 16, 23 * 16))) in caplog.text
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert [lines[step]["left_out"] for step in (20, 25, 30)] == [0, 1, 0]
    assert [lines[step]["left_out_in_all"] for step in (20, 25, 30)] == [0, 1, 1]
    assert lines[25]["loss"] < 10, "the mean is that of the batches that were taken"

    other, step = prepare([player()], ema_decay=0.9, steps=30)
    for index in range(30):
        if index != 22:
            other, _ = step(other, batch_at(index), None)
        else:
            other = dataclasses.replace(other, step=other.step + 1)
    for name in ("variables", "ema"):
        mine, theirs = flatten_by_path(getattr(state, name)), flatten_by_path(getattr(other, name))
        for path, leaf in mine.items():
            np.testing.assert_allclose(leaf, theirs[path], atol=1e-6, err_msg=path)


def test_too_many_in_a_row_stop_the_run(tmp_path):
    with pytest.raises(TooManySpikes, match=r"at step 25 .*last good checkpoint: step 20") as stopped:
        start(tmp_path, CONFIG, batches=Poisoned((18, 22, 23, 24)))
    assert isinstance(stopped.value, TrainingDiverged)
    assert stopped.value.examples == list(range(24 * 16, 25 * 16))
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 20


def test_resuming_remembers_and_ends_with_the_same_bytes(tmp_path):
    whole = start(tmp_path / "whole", CONFIG, batches=Poisoned((12, 19)))
    with pytest.raises(Interrupted):
        start(tmp_path / "cut", CONFIG, batches=Poisoned((12, 19), stop_at=16))
    state = start(tmp_path / "cut", CONFIG, batches=Poisoned((12, 19)))
    assert int(state.spikes["in_all"]) == 2
    assert digest(state.trees()) == digest(whole.trees())


def test_a_policy_may_come_and_change_when_a_run_goes_on(tmp_path):
    bare = CONFIG.replace(spike=None)
    with pytest.raises(Interrupted):
        start(tmp_path, bare, batches=Poisoned((), stop_at=9))
    with pytest.raises(Interrupted):
        start(tmp_path, CONFIG, batches=Poisoned((), stop_at=19))
    wider = CONFIG.replace(spike=LOOSE.replace(window=9))
    state = start(tmp_path, wider)
    assert state.spikes["players"]["net"]["loss"].shape == (9,)
    assert int(state.spikes["players"]["net"]["taken"]) == 10, "counted anew from step 20, since the window changed"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sigmas": 0.0}, r"spike.sigmas is 0.0"),
        ({"window": 1, "least": 1}, r"spike.window is 1"),
        ({"least": 9}, r"spike.least is 9"),
        ({"watch": ("los",)}, r"spike.watch is \('los',\)"),
        ({"stop_after": 0}, r"spike.stop_after is 0"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        POLICY.replace(**changes)
