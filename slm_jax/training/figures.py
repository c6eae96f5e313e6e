"""What a run gets out of its devices: rates of a log window, model FLOPs against the peak, memory in use."""

import resource
import sys
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from slm_jax.parallel.chips import chip_of
from slm_jax.training.clock import Clock
from slm_jax.training.step import StepOutput


def rates(clock: Clock, steps: int, tokens: float, peak_flops: float | None) -> dict[str, float]:
    """Figures of a window of `steps` steps in which `tokens` targets counted; `peak_flops` of all devices per second.

    `step_ms` and `data_wait_ms` are means, the former with the latter in it. `mfu` sets the model's FLOPs, without
    those of recomputation, against what the devices could do at most; it is left out where that is not known.
    """
    seconds = clock.seconds()
    values = {
        "step_ms": 1000 * seconds / steps,
        "data_wait_ms": 1000 * clock.spent["data"] / steps,
        "examples_per_s": clock.rows / seconds,
        "tokens_per_s": tokens / seconds,
        "model_flops_per_step": clock.flops / steps,
    }
    if clock.speech_s:
        values["audio_hours_per_s"] = clock.speech_s / 3600 / seconds
    if peak_flops is not None:
        values["mfu"] = clock.flops / (seconds * peak_flops)
    if clock.spent["compile"]:
        values["compile_s"] = clock.spent["compile"]
    return values


def targets(outputs: Iterable[StepOutput]) -> float:
    """Targets over the steps: what the loss of a step was divided by, of the player that counted most."""
    counts = (_loss_counts(output) for output in outputs)
    return float(sum(max(count, default=0.0) for count in counts))


def peak_flops(devices: Iterable[Any]) -> float | None:
    """What the devices do per second together in bfloat16; None when one of them is not known."""
    chips = [chip_of(device) for device in devices]
    return None if None in chips else sum(chip.device_flops for chip in chips if chip is not None)


def memory() -> dict[str, float]:
    """Bytes in use now and at most, of the fullest device of this host; of the process where devices do not tell."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    known = [one for one in stats if one and "bytes_in_use" in one]
    if known:
        now = max(one["bytes_in_use"] for one in known)
        most = max(one.get("peak_bytes_in_use", now) for one in known)
        return {"memory_bytes": float(now), "memory_peak_bytes": float(most)}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"host_memory_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * float(unit)}


def _loss_counts(output: StepOutput) -> list[float]:
    return [float(np.asarray(pair[1])) for name, pair in output.sums.items() if name.split("/")[-1] == "loss"]
