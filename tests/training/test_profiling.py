"""The profiler's window: which steps, which files, what a wrong one says."""

import gzip
import json

import jax
import pytest

from slm_jax.core.errors import UserError
from slm_jax.training.loop import TrainConfig
from slm_jax.training.profiling import parse_window
from slm_jax.training.stops import Interrupted
from tests.training.small_run import SeededBatches, start
from tests.training.test_loop import Stopping

CONFIG = TrainConfig(steps=12, log_every=50, checkpoint_every_minutes=None, profile="4:7")


def traced_steps(folder):
    """Step numbers in the newest trace below `folder`."""
    (newest,) = sorted((folder / "profile" / "plugins" / "profile").iterdir())[-1:]
    (profile,) = newest.glob("*.xplane.pb")  # what TensorBoard's plugin opens
    assert any(list(plane.lines) for plane in jax.profiler.ProfileData.from_file(str(profile)).planes)
    with gzip.open(next(newest.glob("*.trace.json.gz"))) as file:
        events = json.load(file)["traceEvents"]
    return sorted({int(e["args"]["step_num"]) for e in events if "step_num" in e.get("args", {})})


def test_the_window_is_traced_and_no_other_step(tmp_path):
    start(tmp_path, CONFIG)
    assert traced_steps(tmp_path) == [4, 5, 6]


@pytest.mark.slow(seconds=10)
def test_a_run_that_goes_on_inside_the_window_traces_the_rest_and_one_that_stops_closes_its_trace(tmp_path):
    with pytest.raises(Interrupted):
        start(tmp_path, CONFIG.replace(profile="3:10"), batches=Stopping(5, 15))
    assert traced_steps(tmp_path) == [3, 4, 5]
    start(tmp_path, CONFIG.replace(profile="3:8"), batches=SeededBatches())
    assert traced_steps(tmp_path) == [6, 7]


def test_no_window_no_folder(tmp_path):
    start(tmp_path, CONFIG.replace(profile=None, steps=2))
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("text", ["10", "10-15", "a:b", "15:10", "3:3", "-1:4", ""])
def test_a_wrong_window_is_named(text):
    with pytest.raises(UserError, match=rf"profile is {text!r}"):
        CONFIG.replace(profile=text)


def test_a_window_is_two_numbers():
    assert list(parse_window(" 10:13 ")) == [10, 11, 12]
