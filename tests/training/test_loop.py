"""The loop: resuming, refusing, stopping."""

import json
import logging
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from slm_jax.checkpoints.manager import Checkpoints, restore_params
from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.stops import Interrupted, TrainingDiverged
from tests.training.small_run import CONFIG, SeededBatches, digest, initialise, player, start

SLOW = pytest.mark.slow(seconds=10)


class Stopping(SeededBatches):
    """Sends this process a signal when it hands out batch `at`."""

    def __init__(self, at: int, signum: int) -> None:
        super().__init__()
        self.at, self.signum = at, signum

    def __next__(self):
        if self.next == self.at:
            os.kill(os.getpid(), self.signum)
        return super().__next__()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    state = start(folder)
    return folder, digest(state.trees())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was told to stop while it made step 23; tests go on from copies."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        start(folder, batches=Stopping(22, signal.SIGTERM))
    return folder


@pytest.fixture
def half(stopped, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "half"))


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)])
def test_a_signal_saves_and_the_same_call_goes_on_to_the_same_bytes(undisturbed, tmp_path, signum):
    with pytest.raises(Interrupted) as stopped:
        start(tmp_path, batches=Stopping(17, signum))
    assert stopped.value.exit_code == 128 + signum
    assert stopped.value.step == 18
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 18
    assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)
    state = start(tmp_path)
    assert digest(state.trees()) == undisturbed[1]


def test_resuming_drops_what_the_log_says_of_later_steps(undisturbed, half):
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"step": 25, "loss": 99}\n{"step": 30, "lo')
    start(half)
    lines, whole = read_metrics(half), read_metrics(undisturbed[0])
    assert [line["step"] for line in lines] == [line["step"] for line in whole] == list(range(5, 61, 5))
    # Both windows of step 25 hold the loss of its last steps only in the run that was stopped after step 23.
    for mine, theirs in zip(lines, whole, strict=True):
        if mine["step"] != 25:
            assert mine["loss"] == theirs["loss"]


def test_the_log_names_rates_times_and_compilation(undisturbed):
    first, second = read_metrics(undisturbed[0])[:2]
    assert {"loss", "absolute_error", "grad_norm", "learning_rate", "step_ms", "data_wait_ms"} <= second.keys()
    assert first["compile_s"] > 0
    assert "compile_s" not in second
    assert second["examples_per_s"] == pytest.approx(16 * 1000 / second["step_ms"])
    assert list((undisturbed[0] / "tensorboard").iterdir())


def test_the_loss_falls_and_the_slow_copy_lags(undisturbed):
    lines = read_metrics(undisturbed[0])
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    folder = undisturbed[0] / "checkpoints"
    fast = restore_params(folder)
    slow = restore_params(folder, item="ema")
    assert fast.step == slow.step == 60
    difference = np.abs(np.asarray(fast.trees["params"]["first"]["kernel"] - slow.trees["ema"]["first"]["kernel"]))
    assert 0 < difference.max() < 0.2


def test_a_finished_run_is_returned_as_it_is(undisturbed):
    before = (undisturbed[0] / "metrics.jsonl").read_text()
    assert digest(start(undisturbed[0]).trees()) == undisturbed[1]
    assert (undisturbed[0] / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(
    "damage",
    # each file in every way: tests/faults/test_damaged_files.py
    ["flip", *(pytest.param(damage, marks=SLOW) for damage in ("truncate", "remove array")), "remove seal"],
)
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(undisturbed, half, caplog, damage):
    newest = half / "checkpoints" / "00000023"
    victim = max((p for p in (newest / "train").rglob("d/*")), key=lambda p: p.stat().st_size)
    if damage == "flip":
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "remove array":
        victim.unlink()
    else:
        (newest / "integrity.json").unlink()
    with caplog.at_level(logging.WARNING):
        state = start(half)
    assert "step 23" in caplog.text
    assert ("integrity.json" if damage == "remove seal" else victim.name) in caplog.text
    assert newest.with_name("00000023.damaged").is_dir()
    assert digest(state.trees()) == undisturbed[1]


def test_nan_stops_the_run_names_its_batch_and_spares_the_parameters(tmp_path):
    config = CONFIG.replace(steps=40, log_every=7)
    with pytest.raises(TrainingDiverged, match=r"step 23 .*last good checkpoint: step 20") as stopped:
        start(tmp_path, config, batches=SeededBatches(bad=(22,)))
    assert stopped.value.examples == list(range(22 * 16, 23 * 16))
    kept = restore_params(tmp_path / "checkpoints")
    assert kept.step == 20
    assert all(np.isfinite(leaf).all() for leaf in flatten_by_path(kept.trees).values())


def test_other_settings_and_other_meta_are_refused_with_both_values(undisturbed):
    with pytest.raises(UserError, match=r"train.seed: 0 -> 1"):
        start(undisturbed[0], CONFIG.replace(seed=1))
    with pytest.raises(UserError, match=r"meta.vocabulary: \(absent\) -> abc"):
        start(undisturbed[0], meta={"vocabulary": "abc"})
    with pytest.raises(UserError, match=r"players.net.optimizer.clip: 1.0 -> 0.5"):
        start(undisturbed[0], players=[player(optimizer=player().optimizer.replace(clip=0.5))])
    start(undisturbed[0], CONFIG.replace(log_every=7, keep=5, checkpoint_every_steps=None))


def test_another_machine_is_named_in_a_warning(undisturbed, caplog, monkeypatch):
    from slm_jax.training import resuming

    other = {**resuming.machine_shape(), "cores": 512}
    monkeypatch.setattr(resuming, "machine_shape", lambda: other)
    start(undisturbed[0])
    assert "-> 512" in caplog.text
    assert "machine.cores" in caplog.text or "cores:" in caplog.text


def test_evaluation_runs_on_its_clock_and_at_the_end(tmp_path):
    seen = []

    def evaluate(state, frozen):
        seen.append(int(state.step))
        return {"norm": float(np.abs(state.params["first"]["kernel"]).sum())}

    start(tmp_path, TrainConfig(steps=7, evaluate_every=3, log_every=3), evaluate=evaluate)
    assert seen == [3, 6, 7]
    assert [line["step"] for line in read_metrics(tmp_path) if "evaluate/norm" in line] == [3, 6, 7]


def test_start_from_replaces_parameters_by_path(tmp_path):
    given = {"first": {"kernel": np.full((8, 16), 0.25, np.float32)}}
    # A rate this small moves nothing visibly, so that the end shows the start.
    still = player(optimizer=player().optimizer.replace(learning_rate=1e-9, warmup_steps=0))
    state = start(tmp_path / "a", TrainConfig(steps=1, ema_decay=0.5), start_from=given, players=[still])
    np.testing.assert_allclose(state.params["first"]["kernel"], 0.25, atol=1e-6)
    np.testing.assert_allclose(state.ema["params"]["first"]["kernel"], 0.25, atol=1e-6)
    assert float(np.std(state.params["second"]["kernel"])) > 0.01
    with pytest.raises(UserError, match=r"start_from has 'params/third/kernel'"):
        start(tmp_path / "b", start_from={"third": {"kernel": np.zeros(3)}})


def test_minutes_are_a_clock_of_their_own(tmp_path):
    config = TrainConfig(steps=4, checkpoint_every_minutes=1e-6, keep=9)
    start(tmp_path, config)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps": 0}, "steps is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"checkpoint_every_minutes": 0.0}, "checkpoint_every_minutes is 0.0"),
        ({"evaluate_every": -1}, "evaluate_every is -1"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        CONFIG.replace(**changes)


def test_rows_that_do_not_divide_are_refused(tmp_path):
    with pytest.raises(UserError, match="rows of a batch"):
        start(tmp_path, TrainConfig(steps=2, accumulate=5))


def test_a_config_travels_as_json():
    from slm_jax.core.config import from_json

    config = CONFIG.replace(mesh=MeshConfig(data=2, fsdp=4, rules="fsdp"))
    assert from_json(json.loads(json.dumps(config.to_json()))) == config
    assert jax.tree.structure(initialise(jax.random.key(0))).num_leaves == 5
