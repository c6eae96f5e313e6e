"""Moshi's marks, which stand among the ids of its text, moved behind them, where layouts have them."""

from typing import Any

import numpy as np

from slm_jax.core.errors import require
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig

MARKS = (3, 0)
"""Padding, and that a word begins next, in the ids that were published."""


def marks_last(config: TemporalDepthConfig, params: dict[str, Any], marks: tuple[int, ...] = MARKS) -> dict[str, Any]:
    """Parameters under which text id i is the i-th that is no mark, and the marks come last in the order given.

    The rows of both tables of text are put in another order, and the columns of its head; rows of empty entries stay.
    Raises `UserError` for marks that are no ids of the text.
    """
    size = config.streams[0]
    outside = [mark for mark in marks if not 0 <= mark < size]
    require(not outside, "marks", outside, f"ids of the text are 0 to {size - 1}")
    order = np.array([*(i for i in range(size) if i not in marks), *marks])
    temporal, depth = dict(params["temporal"]), dict(params["depth"])
    temporal["tables_0"] = {"embedding": _rows(temporal["tables_0"]["embedding"], order)}
    temporal["head_0"] = np.asarray(temporal["head_0"])[:, order]
    depth["tables_0"] = {"embedding": _rows(depth["tables_0"]["embedding"], order)}
    return {**params, "temporal": temporal, "depth": depth}


def _rows(table: Any, order: np.ndarray) -> np.ndarray:
    rows = np.asarray(table)
    return np.concatenate([rows[order], rows[len(order) :]])
