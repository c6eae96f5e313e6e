"""Does speech go on as it began? Pitch and tempo beside those of the prompt (Kharitonov et al. 2021)."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require
from slm_jax.evaluation.intervals import Interval


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of units: frames that each lasts, ln F0 over the speaker's mean, NaN where unvoiced.

    `usual`: frames that such a unit lasts in the mean, so that a tempo does not depend on what is said.
    """

    frames: Int[np.ndarray, "N"]
    log_f0: Float[np.ndarray, "N"]
    usual: Float[np.ndarray, "N"]


class Style(NamedTuple):
    """Mean and standard deviation of ln F0 over voiced frames (NaN: none is voiced); usual frames over real ones."""

    pitch: float
    spread: float
    tempo: float


def style_of(runs: Runs) -> Style:
    """How a stretch of speech is said."""
    voiced = ~np.isnan(runs.log_f0)
    weights = runs.frames * voiced
    tempo = float(runs.usual.sum() / runs.frames.sum()) if len(runs.frames) else np.nan
    if weights.sum() == 0:
        return Style(np.nan, np.nan, tempo)
    log_f0 = np.where(voiced, runs.log_f0, 0.0)
    mean = float((log_f0 * weights).sum() / weights.sum())
    square = float((np.square(log_f0 - mean) * weights).sum() / weights.sum())
    return Style(mean, square**0.5, tempo)


def pitch_error(made: Runs, real: Runs) -> float:
    """Mean absolute error of ln F0, run by run as far as both go, where both are voiced; NaN where they never are."""
    count = min(len(made.frames), len(real.frames))
    errors = np.abs(made.log_f0[:count] - real.log_f0[:count])
    return float(errors[~np.isnan(errors)].mean()) if (~np.isnan(errors)).any() else np.nan


def least_error(samples: Sequence[Runs], real: Runs) -> float:
    """The least `pitch_error` among several continuations of one prompt (min-MAE); NaN where none can be compared."""
    errors = [pitch_error(one, real) for one in samples]
    return float(np.nanmin(errors)) if not np.isnan(errors).all() else np.nan


Numbers = Sequence[float] | Float[np.ndarray, "N"]


class Correlation(NamedTuple):
    """Pearson's correlation over items, and its 95 % interval by the bootstrap; None for fewer than three items."""

    value: float | None
    interval: Interval | None
    items: int


def correlation(first: Numbers, second: Numbers, seed: int = 0, draws: int = 2000) -> Correlation:
    """Of pairs of which neither is NaN; raises `UserError` for lists of different lengths."""
    require(len(first) == len(second), "items", (len(first), len(second)), "as many of both")
    pairs = np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)], axis=1)
    pairs = pairs[~np.isnan(pairs).any(1)]
    if len(pairs) < 3:
        return Correlation(None, None, len(pairs))
    chosen = np.random.default_rng(seed).integers(len(pairs), size=(draws, len(pairs)))
    low, high = np.quantile(_pearson(pairs[chosen]), [0.025, 0.975])
    return Correlation(float(_pearson(pairs[None])[0]), (float(low), float(high)), len(pairs))


def _pearson(pairs: Float[np.ndarray, "D N 2"]) -> Float[np.ndarray, "D"]:
    """0 where one of the two does not vary."""
    centred = pairs - pairs.mean(1, keepdims=True)
    norms = np.sqrt(np.square(centred).sum(1)).prod(-1)
    return (centred[..., 0] * centred[..., 1]).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny)
