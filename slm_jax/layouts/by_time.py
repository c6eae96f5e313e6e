"""Streams of several rates as one sequence, sorted by time (SpiRit-LM: units, pitch and style), and back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require


class Timed(NamedTuple):
    """Ids `[T]` at `rate` a second; `once`: an id that is said again says nothing and is left out."""

    ids: Int[np.ndarray, "T"]
    rate: float
    once: bool = False


class Entries(NamedTuple):
    """Of every entry the stream that it is from, its id and its time (seconds)."""

    which: Int[np.ndarray, "N"]
    ids: Int[np.ndarray, "N"]
    times: Float[np.ndarray, "N"]


def sorted_by_time(streams: Sequence[Timed]) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Of every entry the stream that it is from, and its id; at equal times those of earlier streams come first.

    Raises `UserError` for rates that are not above 0.
    """
    return entries_by_time(streams)[:2]


def entries_by_time(streams: Sequence[Timed]) -> Entries:
    """`sorted_by_time`, with the time of every entry."""
    rates = [stream.rate for stream in streams]
    require(min(rates, default=1.0) > 0, "rates", rates, "ids per second, above 0")
    kept = [_kept(stream) for stream in streams]
    which = np.repeat(np.arange(len(streams)), [len(places) for places in kept])
    times = np.concatenate([np.zeros(0), *(places / stream.rate for places, stream in zip(kept, streams, strict=True))])
    ids = np.concatenate([np.zeros(0, int), *(stream.ids[at] for at, stream in zip(kept, streams, strict=True))])
    order = np.lexsort((which, times))
    return Entries(which[order], ids[order], times[order])


def carried_on(
    which: Int[np.ndarray, "N"], ids: Int[np.ndarray, "N"], streams: int, lead: int
) -> Int[np.ndarray, "L K"]:
    """The ids of all streams at every entry of stream `lead`: of the others the last one that was said before it.

    Where none was said yet it is the first that will be; -1 throughout a stream that says nothing at all.
    """
    here = np.flatnonzero(which == lead)
    found = np.full((len(here), streams), -1)
    for stream in range(streams):
        places = np.flatnonzero(which == stream)
        if len(places):
            last = np.searchsorted(places, here, side="right") - 1
            found[:, stream] = ids[places[np.maximum(last, 0)]]
    return found


def _kept(stream: Timed) -> Int[np.ndarray, "_"]:
    """Places of the ids that are said."""
    if not stream.once or len(stream.ids) == 0:
        return np.arange(len(stream.ids))
    return np.flatnonzero(np.append(True, stream.ids[1:] != stream.ids[:-1]))
