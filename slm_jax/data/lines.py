"""What stands between somebody who speaks and somebody who hears it: a microphone, a room, an echo."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require

Sound = Float[np.ndarray, "N"]


class LineConfig(Config):
    """Each of three things happens to a share of the recordings; ranges are drawn from evenly.

    `gain_db`: of what is heard. `noise_db`: how loud white noise is against it. `echo`: how much of what the hearer
    says itself comes back, after `echo_s` seconds. Defaults are those with which Moshi's dialogues are made (Défossez
    et al. 2024, section 4.4), whose noise is recorded and whose echo is followed by reverberation.
    """

    gain_share: float = 0.5
    gain_db: tuple[float, float] = (-24.0, 15.0)
    noise_share: float = 0.3
    noise_db: tuple[float, float] = (-30.0, 6.0)
    echo_share: float = 0.3
    echo: tuple[float, float] = (0.0, 0.2)
    echo_s: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        for name in ("gain_share", "noise_share", "echo_share"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "must be in [0, 1]")
        for name in ("gain_db", "noise_db", "echo", "echo_s"):
            low, high = getattr(self, name)
            require(low <= high, name, (low, high), "from the lower to the higher")
        require(self.echo[0] >= 0 and self.echo_s[0] >= 0, "echo, echo_s", (self.echo, self.echo_s), "0 or more")

    def make(self, rate_hz: int) -> Callable[[Sound, Sound, Any], Sound]:
        """A function of what the other side says, what the hearer says, and an rng: what is heard, within [-1, 1]."""

        def heard(samples: Sound, own: Sound, rng: np.random.Generator) -> Sound:
            power = float(np.sqrt(np.square(samples).mean() + 1e-12))
            if rng.random() < self.gain_share:
                samples = samples * 10 ** (rng.uniform(*self.gain_db) / 20)
            if rng.random() < self.noise_share:
                samples = samples + rng.standard_normal(len(samples)) * power * 10 ** (rng.uniform(*self.noise_db) / 20)
            if rng.random() < self.echo_share:
                late = min(round(rng.uniform(*self.echo_s) * rate_hz), len(own))
                samples = samples + rng.uniform(*self.echo) * np.pad(own, (late, 0))[: len(own)]
            return (samples / max(1.0, float(np.abs(samples).max(initial=0.0)))).astype(np.float32)

        return heard
