"""A bar over the batches of a finite pass."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm


def tracked(batches: Iterable[dict[str, Any]], examples: int, name: str, show: bool = True) -> Iterator[dict[str, Any]]:
    """The batches of `data.passes.finite_batches`, with a bar on stderr that counts examples."""
    interval = 0.5 if sys.stderr.isatty() else 20.0  # a log file wants few lines
    bar = tqdm(total=examples, desc=name, unit="ex", disable=not show, mininterval=interval, dynamic_ncols=True)
    with bar:
        for batch in batches:
            yield batch
            bar.update(int(batch["valid"].sum()))
