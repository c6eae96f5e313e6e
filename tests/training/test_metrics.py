"""Logs: means weigh every token alike, files survive a kill."""

import importlib
import json
import math
import sys

import pytest

from slm_jax.training.metrics import MetricsLog, Progress, _absent, keep_until, means, read_metrics


def test_means_weigh_by_count_and_skip_what_was_never_counted():
    window = [{"loss": (6.0, 3.0), "critic": (0.0, 0.0)}, {"loss": (4.0, 1.0), "critic": (0.0, 0.0)}]
    assert means(window) == {"loss": 2.5}


def test_lines_after_the_step_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 3, "a": 2}\n{"step": 2, "a": 3}\nnot json\n[1]\n{"step": 2, "a')
    keep_until(path, 2)
    assert [line["a"] for line in read_metrics(tmp_path)] == [1, 3]
    keep_until(tmp_path / "absent.jsonl", 2)
    assert not (tmp_path / "absent.jsonl").exists()


def test_what_is_not_finite_becomes_null(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": math.nan, "norm": math.inf, "rate": 0.5})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 1, "loss": None, "norm": None, "rate": 0.5}


def test_tensorboard_drops_the_steps_that_are_done_again(tmp_path):
    reader = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is not installed")
    from tensorboardX.record_writer import RecordWriter  # proves that the writer's format is the one read below

    assert RecordWriter is not None
    with MetricsLog(tmp_path, 0) as log:
        for step in range(1, 5):
            log.write(step, {"loss": float(step)})
    with MetricsLog(tmp_path, 2) as log:
        log.write(3, {"loss": 30.0})
    assert [line["loss"] for line in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
    events = [event for path in sorted((tmp_path / "tensorboard").iterdir()) for event in read_events(path, reader)]
    marks = [event.step for event in events if event.HasField("session_log")]
    assert 3 in marks, "TensorBoard hides steps from a START mark on"
    values = [(event.step, value.simple_value) for event in events for value in event.summary.value]
    assert (3, 30.0) in values


def read_events(path, reader):
    """Events of a TensorBoard file: records of (length u64, crc u32, bytes, crc u32)."""
    data, place = path.read_bytes(), 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = reader.Event()
        event.ParseFromString(data[place + 12 : place + 12 + length])
        yield event
        place += 16 + length


def test_the_bar_shows_losses_and_compile_time_apart(capsys):
    with Progress("units", 2, 4, True) as bar:
        bar.say("compiled in 3.0 s")
        bar.advance()
        bar.show({"generator/loss": 1.25, "learning_rate": 0.1})
        bar.advance()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "compiled in 3.0 s" in shown.err
    assert "4/4" in shown.err
    assert "generator/loss=1.25" in shown.err
    assert "learning_rate" not in shown.err
    with Progress("units", 0, 1, False) as bar:
        bar.say("nothing")
        bar.advance()
    assert capsys.readouterr().err == ""


def test_a_package_can_be_kept_out_of_an_import_and_comes_in_later():
    assert "mailbox" not in sys.modules
    with _absent("mailbox"), pytest.raises(ImportError):
        importlib.import_module("mailbox")
    module = importlib.import_module("mailbox")
    with _absent("mailbox"):
        assert importlib.import_module("mailbox") is module, "what is there stays"
