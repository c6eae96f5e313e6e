"""The steps handed to the devices whose outcome the host has not looked at yet."""

import logging
from collections import deque

import numpy as np

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.training.metrics import means
from slm_jax.training.spikes import MEASURES, SpikeConfig
from slm_jax.training.step import StepOutput
from slm_jax.training.stops import TooManySpikes, TrainingDiverged

log = logging.getLogger(__name__)


class Lookout:
    """Stops the run at the first step that was not finite, and after too many that were left out as spikes.

    It names the examples of such a step and the last good checkpoint of `checkpoints`.
    """

    def __init__(self, checkpoints: Checkpoints, spike: SpikeConfig | None) -> None:
        self._checkpoints, self._spike = checkpoints, spike
        self._steps: deque[tuple[int, np.ndarray, StepOutput]] = deque()

    def add(self, step: int, examples: np.ndarray, output: StepOutput) -> None:
        """A step that was just handed to the devices."""
        self._steps.append((step, examples, output))

    def look(self, leave: int = 0) -> None:
        """Look at the oldest steps until `leave` remain; waits for the devices to have taken them."""
        while len(self._steps) > leave:
            step, examples, output = self._steps.popleft()
            if not bool(np.asarray(output.finite)):
                self._give_up(TrainingDiverged, step, examples, output)
            if left_out(output):
                self._tell(step, examples, output)

    def _tell(self, step: int, examples: np.ndarray, output: StepOutput) -> None:
        verdict = output.verdict
        assert verdict is not None and self._spike is not None
        limits = {name: float(value) for name, value in verdict.limits.items()}
        named = f"examples {examples.tolist()}"
        log.warning("step %d left out: %s above %s; %s", step, _shown(_telling(output)), _shown(limits), named)
        if int(verdict.in_a_row) >= self._spike.stop_after:
            self._give_up(TooManySpikes, step, examples, output)

    def _give_up(self, error: type[TrainingDiverged], step: int, examples: np.ndarray, output: StepOutput) -> None:
        self._checkpoints.wait()
        good = self._checkpoints.latest_step()
        raise error(step, examples.tolist(), _telling(output), good, self._checkpoints.folder)


def left_out(output: StepOutput) -> bool:
    """Whether the policy for loss spikes left the step out."""
    return output.verdict is not None and bool(output.verdict.left_out)


def _telling(output: StepOutput) -> dict[str, float]:
    return {name: value for name, value in means([output.sums]).items() if name.split("/")[-1] in MEASURES}


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
