"""Items of ABX: phones between their neighbours, from published files or label spans, and the frames of each."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import UserError, require

COLUMNS = 7


class Item(NamedTuple):
    """A phone with its neighbours in one file: from the start of the first to the end of the last, in seconds."""

    file: str
    onset_s: float
    offset_s: float
    phone: str
    before: str
    after: str
    speaker: str

    @property
    def context(self) -> tuple[str, str]:
        """The neighbours."""
        return self.before, self.after


def read_items(path: str | Path) -> list[Item]:
    """The items of a published file: `#file onset offset #phone prev-phone next-phone speaker`, one line each.

    The first line is the heading. Raises `UserError` that names a line which has other columns.
    """
    items = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines()[1:], start=2):
        fields = line.split()
        require(len(fields) == COLUMNS, f"{path}, line {number}", line, f"{COLUMNS} columns")
        try:
            items.append(Item(fields[0], float(fields[1]), float(fields[2]), *fields[3:]))
        except ValueError:
            raise UserError(f"{path}, line {number} is {line!r}: onset and offset are seconds") from None
    return items


def triphones(
    file: str,
    speaker: str,
    start_s: Sequence[float] | Float[np.ndarray, "P"],
    end_s: Sequence[float] | Float[np.ndarray, "P"],
    phones: Sequence[str],
    left_out: Iterable[str] = (),
) -> list[Item]:
    """Items from label spans: every phone with a neighbour on either side that it touches, none of them `left_out`.

    Spans stand in the order of time; `left_out`: silence and the like.
    """
    require(len(start_s) == len(end_s) == len(phones), "spans", (len(start_s), len(phones)), "equal counts")
    never = set(left_out)
    return [
        Item(file, float(start_s[p - 1]), float(end_s[p + 1]), phones[p], phones[p - 1], phones[p + 1], speaker)
        for p in range(1, len(phones) - 1)
        if not never & {*phones[p - 1 : p + 2]}
        and math.isclose(end_s[p - 1], start_s[p], abs_tol=1e-4)
        and math.isclose(end_s[p], start_s[p + 1], abs_tol=1e-4)
    ]


def one_hot(units: Int[np.ndarray, "T"], size: int) -> Float[np.ndarray, "T {size}"]:
    """Units as frames: equal ones are 0 apart, all others 0.5 under the angular distance."""
    return np.eye(size, dtype=np.float32)[np.asarray(units)]


def frames_of(item: Item, frames: Float[np.ndarray, "T D"], rate_hz: float | int) -> Float[np.ndarray, "_ D"]:
    """The frames whose middles, (k + 1/2) / rate, lie in the item, less the last when it ends there; may be none."""
    first = max(0, math.ceil(rate_hz * item.onset_s - 0.5))
    return frames[first : max(first, math.floor(rate_hz * item.offset_s - 0.5))]
