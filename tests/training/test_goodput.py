"""Goodput: events of made-up processes add up by hand, those of real ones to the time that passed."""

import json
import os
import signal
import time

import pytest

from slm_jax.core.errors import UserError
from slm_jax.training.goodput import CAUSES, FILE, Goodput, Ledger, account, read_events, read_goodput
from slm_jax.training.loop import TrainConfig
from slm_jax.training.stops import Interrupted, TrainingDiverged
from tests.training.small_run import SeededBatches, start

CONFIG = TrainConfig(steps=30, log_every=5, checkpoint_every_steps=10, checkpoint_every_minutes=None)


class Slow(SeededBatches):
    """Every batch takes a while; this process gets a SIGTERM with batch `stop_at`."""

    def __init__(self, stop_at: int | None = None, **changes) -> None:
        super().__init__(delay_s=0.02, **changes)
        self.stop_at = stop_at

    def __next__(self):
        if self.next == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()


def event(name, at, step=None, **spent):
    return {"event": name, "time": 100.0 + at, "spent": spent} | ({} if step is None else {"step": step})


KILLED = [
    event("start", 0),
    event("ready", 3, 0),
    event("first step", 10, None, compile=5.0, data=0.5),
    event("log", 20, 10, data=1.0),
    event("save", 22, 10, save=1.5),
    event("log", 32, 20, data=2.0),
]
"""Killed after step 20, saved at 10."""


def test_the_account_of_a_killed_run_that_goes_on_by_hand():
    second = [
        event("start", 40),
        event("ready", 44, 10, restore=3.0),
        event("first step", 46, None, compile=1.0),
        event("log", 56, 25, data=1.0),
        event("evaluate", 58, 25, evaluate=1.75),
        event("done", 59),
    ]
    found = account([*KILLED, *second])
    lost = {
        "start_up": 3 + 1.5 + 1 + 1,
        "compile": 6.0,
        "restore": 3.0,
        "data": 0.5 + 1 + 2 + 1,
        "save": 1.5 + 1,
        "evaluate": 1.75,
        "redone": 8.0,
        "downtime": 8.0,
    }
    assert found.lost_s == pytest.approx(lost)
    assert found.productive_s == pytest.approx(9 + 0.5 + 9 + 0.25)
    assert found.wall_s == 59
    assert found.productive_s + sum(found.lost_s.values()) == pytest.approx(found.wall_s)
    assert (found.starts, found.share) == (2, pytest.approx(18.75 / 59))


def test_steps_are_redone_in_part_and_by_any_later_process():
    part = [event("start", 40), event("ready", 41, 15), event("log", 50, 18)]
    assert account([*KILLED, *part]).lost_s["redone"] == pytest.approx(4.0)
    again = [*part, event("start", 60), event("ready", 61, 5), event("log", 70, 18)]
    assert account([*KILLED, *again]).lost_s["redone"] == pytest.approx(4.5 + 8 + 9)


def test_a_text_names_the_largest_loss_first():
    text = Goodput(100.0, 60.0, {"compile": 10.0, "start_up": 30.0, "redone": 0.0}, 2).to_text()
    assert text == "goodput 60.0 % of 100 s in 2 starts; lost: start-up 30.0 %, compile 10.0 %"


def test_the_account_of_a_real_run_adds_up(tmp_path):
    began, evaluations = time.time(), []

    def evaluate(state, frozen):
        time.sleep(0.2)
        evaluations.append(int(state.step))
        return {"nothing": 0.0}

    with pytest.raises(Interrupted):
        start(tmp_path, CONFIG, batches=Slow(stop_at=7))
    time.sleep(0.5)
    with pytest.raises(TrainingDiverged):
        start(tmp_path, CONFIG, batches=Slow(bad=(13,)))
    start(tmp_path, CONFIG.replace(evaluate_every=15), batches=Slow(), evaluate=evaluate)
    wall = time.time() - began

    found = read_goodput(tmp_path)
    assert found.starts == 3
    assert found.lost_s.keys() == CAUSES.keys()
    assert found.wall_s == pytest.approx(wall, abs=0.3)
    assert found.productive_s + sum(found.lost_s.values()) == pytest.approx(found.wall_s, rel=1e-3)
    assert 0 < found.productive_s < 0.5 * wall
    batches = 8 + 6 + 20  # from 0 to the signal, from 8 to the bad one, from 10 to the end
    assert batches * 0.02 <= found.lost_s["data"] < 0.5 * wall
    assert evaluations == [15, 30]
    assert found.lost_s["evaluate"] == pytest.approx(2 * 0.2, abs=0.1)
    assert found.lost_s["downtime"] == pytest.approx(0.5, abs=0.3)
    assert all(found.lost_s[cause] > 0 for cause in ("compile", "restore", "save", "redone", "start_up"))
    names = [one["event"] for one in read_events(tmp_path / FILE)]
    assert [name for name in names if name in ("start", "stopped", "failed", "done")] == [
        *("start", "stopped", "start", "failed", "start", "done")
    ]


def test_a_run_that_is_done_gets_no_lines_and_a_torn_one_is_passed_over(tmp_path):
    start(tmp_path, CONFIG.replace(steps=3))
    before = (tmp_path / FILE).read_bytes()
    start(tmp_path, CONFIG.replace(steps=3))
    assert (tmp_path / FILE).read_bytes() == before
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"event": "log", "time": 1')
    with Ledger(tmp_path) as ledger:
        ledger.spent["restore"] += 0.25
        ledger.note("ready", 3)
    events = list(read_events(tmp_path / FILE))
    assert [one["event"] for one in events][-4:] == ["done", "start", "ready", "done"]
    assert events[-2]["spent"] == {"restore": 0.25}
    assert all(json.loads(line) for line in before.splitlines() if line)


def test_nothing_started_is_an_error(tmp_path):
    with pytest.raises(UserError, match="never started"):
        read_goodput(tmp_path)
