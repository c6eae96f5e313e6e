"""Figures of a window: rates by hand, model FLOPs as the formula has them, memory as the device tells it."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.parallel.chips import CHIPS
from slm_jax.training import figures
from slm_jax.training.clock import Clock
from slm_jax.training.figures import memory, peak_flops, rates, targets
from slm_jax.training.loop import TrainConfig
from slm_jax.training.metrics import read_metrics
from slm_jax.training.step import StepOutput
from tests.training.small_run import HIDDEN, ROWS, WIDTH, SeededBatches, start


class Stopped(Clock):
    """A clock that stands at five seconds."""

    def seconds(self) -> float:
        return 5.0


def test_rates_by_hand():
    clock = Stopped(rows=80, speech_s=7200.0, flops=2e12)
    clock.spent["data"] = 0.5
    values = rates(clock, 10, 3000.0, 4e12)
    assert values == pytest.approx(
        {
            "step_ms": 500.0,
            "data_wait_ms": 50.0,
            "examples_per_s": 16.0,
            "tokens_per_s": 600.0,
            "audio_hours_per_s": 0.4,
            "model_flops_per_step": 2e11,
            "mfu": 0.1,
        }
    )
    assert rates(Stopped(), 10, 1.0, None).keys().isdisjoint({"mfu", "audio_hours_per_s", "compile_s"})


def test_what_is_lost_on_a_cause_is_no_step_time():
    clock = Clock()
    clock.start -= 10.0
    clock.spent.update({"compile": 4.0, "save": 1.0, "data": 2.0})
    assert clock.seconds() == pytest.approx(5.0, abs=0.1)


def test_targets_are_those_of_the_player_that_counted_most():
    def output(**counts):
        sums = {f"{name}/loss": (jnp.ones(()), jnp.asarray(count)) for name, count in counts.items()}
        return StepOutput(sums | {"net/grad_norm": (jnp.ones(()), jnp.asarray(10**6))}, jnp.array(True))

    assert targets([output(net=5, other=7), output(net=6), output()]) == 7 + 6


def test_peaks_add_up_and_an_unknown_device_has_none():
    tpu, cpu = types.SimpleNamespace(device_kind="TPU v5p"), types.SimpleNamespace(device_kind="cpu")
    assert peak_flops([tpu, tpu]) == 2 * CHIPS["v5p"].device_flops
    assert peak_flops([tpu, cpu]) is None


def test_memory_is_that_of_the_fullest_device_or_of_the_process(monkeypatch):
    on_cpu = memory()
    assert list(on_cpu) == ["host_memory_peak_bytes"]
    assert 50e6 < on_cpu["host_memory_peak_bytes"] < 1e12

    def device(now, peak):
        return types.SimpleNamespace(memory_stats=lambda: {"bytes_in_use": now, "peak_bytes_in_use": peak})

    monkeypatch.setattr(figures.jax, "local_devices", lambda: [device(5, 9), device(7, 8)])
    assert memory() == {"memory_bytes": 7, "memory_peak_bytes": 9}


def test_a_run_logs_tokens_speech_flops_and_memory(tmp_path, monkeypatch):
    from slm_jax.training import loop

    monkeypatch.setattr(loop, "peak_flops", lambda devices: 1e12)
    start(tmp_path, TrainConfig(steps=8, log_every=4), speech_s=lambda batch: 90.0 * len(batch["x"]))
    second = read_metrics(tmp_path)[1]
    batches, counted = SeededBatches(), 0
    for number, batch in zip(range(8), batches, strict=False):
        counted += batch["mask"].sum() if number >= 4 else 0
    window_s = 4 * second["step_ms"] / 1000
    assert second["tokens_per_s"] == pytest.approx(counted / window_s)
    assert second["audio_hours_per_s"] == pytest.approx(4 * ROWS * 90 / 3600 / window_s)
    # Forward, gradients of both kernels, and the gradient of the hidden layer: the input needs none.
    products = 2 * ROWS * WIDTH * HIDDEN * 2 + 2 * ROWS * HIDDEN * 3
    assert second["model_flops_per_step"] == products
    assert second["mfu"] == pytest.approx(products * 4 / window_s / 1e12)
    assert second["host_memory_peak_bytes"] > 0
    assert np.isfinite(list(second.values())).all()
