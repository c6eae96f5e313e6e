"""How much of a track of F0 is left after codes: correlation, error in cents, voicing; and how codes are used."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require

GROSS = 0.2
"""A value further off than this share of F0 is a gross error (Rabiner et al. 1976)."""


class PitchKept(NamedTuple):
    """How near one track is to another.

    `correlation`: of ln F0 less the real track's mean, over values that are voiced in both. `cents`: root mean square
    difference there. `gross`: share of those values further off than a fifth of F0. `voicing_error`: share of all
    values whose voicing differs. `values`: how many are voiced in both.
    """

    correlation: float
    cents: float
    gross: float
    voicing_error: float
    values: int


def pitch_kept(made: Sequence[Float[np.ndarray, "_"]], real: Sequence[Float[np.ndarray, "_"]]) -> PitchKept:
    """Of tracks of F0 (Hz, 0 where unvoiced), as far as both of a pair go; NaN where nothing is voiced in both."""
    require(len(made) == len(real), "tracks", (len(made), len(real)), "as many of both")
    one, other, wrong, total = [], [], 0, 0
    for a, b in zip(made, real, strict=True):
        a, b = a[: len(b)].astype(np.float64), b[: len(a)].astype(np.float64)
        both = (a > 0) & (b > 0)
        wrong, total = wrong + int(((a > 0) != (b > 0)).sum()), total + len(a)
        logs = np.log(np.stack([a[both], b[both]]))
        one.append(logs[0] - logs[1].mean() if both.any() else logs[0])
        other.append(logs[1] - logs[1].mean() if both.any() else logs[1])
    first, second = np.concatenate(one), np.concatenate(other)
    if not len(first):
        return PitchKept(np.nan, np.nan, np.nan, wrong / max(total, 1), 0)
    off = first - second
    cents = 1200 / np.log(2) * float(np.sqrt(np.square(off).mean()))
    gross = float((np.abs(np.expm1(off)) > GROSS).mean())
    varies = min(first.std(), second.std()) > 0
    related = float(np.corrcoef(first, second)[0, 1]) if varies else 0.0
    return PitchKept(related, cents, gross, wrong / total, len(first))


class CodeUse(NamedTuple):
    """`used`: codes that occur at all; `perplexity`: the exponential of the entropy of how often each does."""

    used: int
    perplexity: float


def code_use(rows: Sequence[Int[np.ndarray, "_"]], size: int) -> CodeUse:
    """Of all rows together."""
    counts = np.bincount(np.concatenate(rows), minlength=size)
    shares = counts[counts > 0] / counts.sum()
    return CodeUse(int((counts > 0).sum()), float(np.exp(-(shares * np.log(shares)).sum())))
