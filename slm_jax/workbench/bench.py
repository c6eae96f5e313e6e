"""Our speed beside the reference's: the same job on the same numbers, done in turns.

A case first shows that both sides compute the same; one that does not is not timed. Then each reference way is tried
twice and the quickest one meets ours in interleaved pairs, so that a machine that is slow for a while is slow for both.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require

Arrays = Mapping[str, np.ndarray]
Way = Callable[[], Arrays]
Row = dict[str, Any]
RELATIVE_TOLERANCE = 1e-4
REST_S = 0.05
"""Pause before each run: threads of the side that ran before spin for a while before they sleep."""


class BenchSettings(Config):
    """`pairs` of runs per case; `compile` lets `torch.compile` compete; `quick`: small shapes, to try the command.

    `dtype` is that of the computation; outputs in bfloat16 are shown but not judged.
    """

    pairs: int = 7
    compile: bool = False
    quick: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.pairs >= 1, "pairs", self.pairs, "must be at least 1")
        require(self.dtype in ("float32", "bfloat16"), "dtype", self.dtype, "must be float32 or bfloat16")


@dataclass(frozen=True)
class Job:
    """One job, ready to be done by each side; a way gives arrays that are there when it returns.

    `flops` and `bytes`: what the job cannot do without. `compared`: how many of the first runs must agree (2 where a
    run changes the weights). `difference`: largest difference of the outputs and the largest one allowed.
    """

    ours: Way
    references: Mapping[str, Way]
    flops: int | float
    bytes: int | float
    compared: int = 1
    difference: Callable[[Arrays, Arrays], tuple[float, float]] | None = None


class Timing(NamedTuple):
    """Seconds of one run: on the clock, and of all cores of this process together."""

    wall: float
    cpu: float


class Comparison(NamedTuple):
    """The largest difference between the outputs of ours and of any reference way, and the largest allowed."""

    difference: float
    tolerance: float


def measure(
    name: str, job: Job, settings: BenchSettings, ceilings: Mapping[str, float], on_pair: Callable[[], None]
) -> Row:
    """The row of one case; `ceilings` are GFLOP/s and GB/s of this machine. The times are None when outputs differ."""
    load = os.getloadavg()[0]
    start = time.perf_counter()
    first = job.ours()
    first_s = time.perf_counter() - start
    compared = compare(job, first)
    judged = settings.dtype == "float32"
    row: Row = {"case": name, "dtype": settings.dtype, "quick": settings.quick, "load_before": load}
    row |= {"max_difference": compared.difference, "tolerance": compared.tolerance if judged else None}
    row |= {"equal": compared.difference <= compared.tolerance if judged else None}
    row |= dict.fromkeys(("ours_ms", "reference", "reference_ms", "ratio"))
    if row["equal"] is False:
        return row
    tried = {way: min(timed(run).wall for _ in range(2)) for way, run in job.references.items()}
    best = min(tried, key=lambda way: tried[way])
    pairs = list(interleaved(job.ours, job.references[best], settings.pairs, on_pair))
    row |= figures(pairs) | {"reference": best, "pairs": settings.pairs}
    row |= {"compile_s": max(first_s - row["ours_ms"] / 1e3, 0.0)}
    row |= {"tried_ms": {way: 1e3 * seconds for way, seconds in tried.items()}}
    return row | floor(job, ceilings)


def compare(job: Job, first: Arrays) -> Comparison:
    """The first outputs of ours against those of every reference way, over as many runs as the job asks for."""
    judge = job.difference or largest_difference
    ours = [first] + [job.ours() for _ in range(job.compared - 1)]
    found = [Comparison(*judge(mine, way())) for way in job.references.values() for mine in ours]
    return max(found, key=lambda c: c.difference - c.tolerance)


def largest_difference(ours: Arrays, theirs: Arrays) -> tuple[float, float]:
    """Largest absolute difference, and the tolerance `1e-4 max(1, max|reference|)`; whole numbers must be equal.

    Of several outputs the worst counts. A difference that is no number counts as infinite.
    """
    require(ours.keys() == theirs.keys(), "outputs", sorted(ours), f"the reference gives {sorted(theirs)}")
    found = []
    for name, reference in theirs.items():
        require(ours[name].shape == reference.shape, name, ours[name].shape, f"the reference has {reference.shape}")
        exact = np.issubdtype(reference.dtype, np.integer)
        difference = float(np.abs(ours[name].astype(np.float64) - reference).max())
        allowed = 0.0 if exact else RELATIVE_TOLERANCE * max(1.0, float(np.abs(reference).max()))
        found.append((difference if np.isfinite(difference) else np.inf, allowed))
    return max(found, key=lambda pair: pair[0] - pair[1])


def interleaved(ours: Way, reference: Way, pairs: int, on_pair: Callable[[], None]) -> Iterator[tuple[Timing, Timing]]:
    """(ours, reference) once per pair; who goes first changes."""
    for index in range(pairs):
        if index % 2:
            second, first = timed(reference), timed(ours)
        else:
            first, second = timed(ours), timed(reference)
        yield first, second
        on_pair()


def timed(run: Way) -> Timing:
    """One run after a rest."""
    time.sleep(REST_S)
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def figures(pairs: list[tuple[Timing, Timing]]) -> dict[str, Any]:
    """Medians in milliseconds, and the median and the 10-90 % range of reference / ours within each pair."""
    seconds = np.array(pairs)  # [pairs, side, clock]
    ours, reference = 1e3 * np.median(seconds, axis=0)
    ratios = seconds[:, 1, 0] / seconds[:, 0, 0]
    low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    named = {"ours_ms": ours[0], "reference_ms": reference[0], "ratio": middle, "ratio_p10": low, "ratio_p90": high}
    named |= {"ours_cpu_ms": ours[1], "reference_cpu_ms": reference[1]}
    return {name: float(value) for name, value in named.items()}


def floor(job: Job, ceilings: Mapping[str, float]) -> dict[str, Any]:
    """The least time that the arithmetic and the traffic of a job can take under the ceilings, and which binds."""
    least = {"flops": job.flops / ceilings["gflop_s"] / 1e6, "bytes": job.bytes / ceilings["gbyte_s"] / 1e6}
    binding = max(least, key=lambda what: least[what])
    return {"floor_ms": least[binding], "floor_by": binding, "gflop": job.flops / 1e9, "gbyte": job.bytes / 1e9}
