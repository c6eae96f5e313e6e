"""Sound from codes beside the recording: signal to distortion, quality as heard, use of codebooks."""

import warnings

import numpy as np
from jaxtyping import Float, Int

from slm_jax.audio.files import resample

WIDE_HZ = 16_000
"""The rate at which quality is judged."""


def si_sdr(reference: Float[np.ndarray, "_"], made: Float[np.ndarray, "_"]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019); the longer signal is cut."""
    count = min(len(reference), len(made))
    reference, made = (np.asarray(x[:count], np.float64) for x in (reference, made))
    target = reference * (reference @ made) / max(float(reference @ reference), 1e-12)
    distortion = np.square(made - target).sum()
    return float(10 * np.log10(max(float(np.square(target).sum()), 1e-12) / max(float(distortion), 1e-12)))


def pesq(reference: Float[np.ndarray, "_"], made: Float[np.ndarray, "_"], rate_hz: int) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6; None where the package is absent or finds no speech."""
    try:
        from pesq import NoUtterancesError
        from pesq import pesq as of_signals
    except ImportError:
        return None
    one, other = (resample(np.asarray(x, np.float32), rate_hz, WIDE_HZ) for x in (reference, made))
    count = min(len(one), len(other))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(of_signals(WIDE_HZ, one[:count], other[:count], "wb"))
        except (NoUtterancesError, ValueError):
            return None


def use_of(ids: Int[np.ndarray, "T K"], sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Of every column: the share of its codes that occur, and its perplexity as a share of its codes."""
    found = []
    for column, size in zip(ids.T, sizes, strict=False):
        counts = np.bincount(column, minlength=size)
        share = counts[counts > 0] / max(counts.sum(), 1)
        perplexity = float(np.exp(-(share * np.log(share)).sum()))
        found.append({"used": float((counts > 0).mean()), "perplexity": perplexity / size})
    return found
