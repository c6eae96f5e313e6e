"""The ways in which a training run ends before its last step."""

import contextlib
import errno
from collections.abc import Callable, Iterator

from slm_jax.core.errors import UserError
from slm_jax.core.paths import AnyPath


class Interrupted(Exception):
    """A signal stopped the run after it saved; `exit_code` is 128 + the signal's number."""

    def __init__(self, signum: int, step: int, folder: AnyPath) -> None:
        super().__init__(f"stopped by signal {signum} after step {step}; saved in {folder}; the same command goes on")
        self.signum, self.step, self.exit_code = signum, step, 128 + signum


class TrainingDiverged(UserError):
    """A loss or gradient became NaN or infinite."""

    WHAT = "training diverged"

    def __init__(
        self, step: int, examples: list[int], values: dict[str, float], good: int | None, folder: AnyPath
    ) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        last = f"step {good} in {folder}" if good is not None else "none yet"
        super().__init__(
            f"{self.WHAT} at step {step} ({shown}) on a batch of examples {examples}; last good checkpoint: {last}"
        )
        self.step, self.examples, self.last_good = step, examples, good


class TooManySpikes(TrainingDiverged):
    """As many batches in a row as `SpikeConfig.stop_after` allows were left out for their loss or gradient."""

    WHAT = "training spiked too many times in a row"


@contextlib.contextmanager
def full_disk_told(folder: AnyPath, last_good: Callable[[], int | None]) -> Iterator[None]:
    """A disk that takes nothing more (full, or a quota) becomes a `UserError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        good = last_good()
        last = f"step {good}" if good is not None else "none yet"
        raise UserError(f"{folder} could not be written: {error.strerror}. Last good checkpoint: {last}") from error
