"""Who speaks when: spans of voice in a side of a conversation, and how its turns lie beside those of the other.

The words are those of Full-Duplex-Bench (Lin et al. 2025): whoever takes over speaks for a second at least; what is
shorter while the other goes on is a backchannel.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import require

FRAME_S = 0.02
QUIET_DB, LOUD_DB = -50.0, 35.0
"""A frame is voiced above this level (dB of full scale), and within so much of the loudest of its side."""
GAP_S, LEAST_S = 0.25, 0.1
"""A silence that is shorter breaks no span; a span that is shorter is none."""
TAKEOVER_S = 1.0

Span = tuple[float, float]


def voiced_spans(samples: Float[np.ndarray, "N"], rate_hz: int) -> list[Span]:
    """Where somebody is heard, start and end in seconds; by energy, in frames of 20 ms."""
    size = round(FRAME_S * rate_hz)
    frames = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    level = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    voiced = level > max(QUIET_DB, level.max(initial=QUIET_DB) - LOUD_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced, [False]])))
    spans = [(start * FRAME_S, end * FRAME_S) for start, end in edges.reshape(-1, 2)]
    return [(start, end) for start, end in joined(spans) if end - start >= LEAST_S]


def joined(spans: Sequence[Span], gap_s: float = GAP_S) -> list[Span]:
    """Spans in time's order as one where the silence between them is short."""
    found: list[Span] = []
    for start, end in spans:
        if found and start - found[-1][1] < gap_s:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def voice_within(spans: Sequence[Span], start: float, end: float) -> float:
    """Seconds of voice between two times."""
    require(start <= end, "start", start, f"at most the end {end}")
    return sum(max(0.0, min(end, last) - max(start, first)) for first, last in spans)


def takes_over(spans: Sequence[Span], start: float, end: float) -> bool:
    """Does somebody who begins in this time speak for a second at least?"""
    return any(start <= first < end and last - first >= TAKEOVER_S for first, last in spans)


def first_voice(spans: Sequence[Span], after: float) -> float | None:
    """Seconds from a time to the next beginning of a span; 0 while one goes on, None where there is none."""
    waits = [max(0.0, first - after) for first, last in spans if last > after]
    return min(waits) if waits else None


def backchannels(spans: Sequence[Span], other: Sequence[Span]) -> int:
    """Spans shorter than a takeover that begin while the other side speaks."""
    short = [first for first, last in spans if last - first < TAKEOVER_S]
    return sum(any(start <= first < end for start, end in other) for first in short)
