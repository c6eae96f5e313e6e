"""Bars on stderr: over the batches of a finite pass, over the bytes of a conversion."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def tracked(batches: Iterable[dict[str, Any]], examples: int, name: str, show: bool = True) -> Iterator[dict[str, Any]]:
    """The batches of `data.passes.finite_batches`, with a bar on stderr that counts examples."""
    bar = tqdm(total=examples, desc=name, unit="ex", disable=not show, mininterval=_interval(), dynamic_ncols=True)
    with bar:
        for batch in batches:
            yield batch
            bar.update(int(batch["valid"].sum()))


def counted(total: int, name: str, unit: str = "B", show: bool = True) -> tqdm:
    """A bar over `total` bytes (or other units), to be told how many more are done by `update`."""
    settings = {"unit": unit, "unit_scale": True, "mininterval": _interval(), "dynamic_ncols": True}
    return tqdm(total=total, desc=name, disable=not show, **settings)


def _interval() -> float:
    return 0.5 if sys.stderr.isatty() else 20.0  # a log file wants few lines
