"""Lengths of examples, and few bucket lengths that cover them."""

import numpy as np

from slm_jax.core.errors import require
from slm_jax.data.order import Source


def source_lengths(source: Source, field: str) -> np.ndarray:
    """Length of the first axis of `field` in every example, int64 `[examples]`.

    A source that offers `lengths(field)` (a `RecordSource`) is asked, any other is read through once.
    """
    if hasattr(source, "lengths"):
        return source.lengths(field)
    return np.asarray([len(source[i][field]) for i in range(len(source))], np.int64)


def bucket_lengths(lengths: np.ndarray, count: int = 4, multiple: int = 1) -> tuple[int, ...]:
    """At most `count` bucket lengths that hold about equally many of `lengths`, rounded up to a multiple.

    The last one holds the longest. Fewer are returned where rounding makes two of them equal.
    """
    require(count > 0, "count", count, "at least one bucket")
    require(multiple > 0, "multiple", multiple, "at least 1")
    require(len(lengths) > 0, "lengths", len(lengths), "at least one example")
    edges = np.quantile(lengths, np.linspace(0, 1, count + 1)[1:], method="higher")
    return tuple(sorted({int(-(-edge // multiple) * multiple) for edge in edges}))
