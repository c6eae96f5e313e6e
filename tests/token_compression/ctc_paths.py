"""CTC written out: every path of a short row, one after the other."""

import math
from collections.abc import Iterator
from itertools import groupby, product

import numpy as np

BLANK = 0


def said(path: tuple[int, ...], blank: int = BLANK) -> list[int]:
    """What a path says."""
    return [label for label, _ in groupby(path) if label != blank]


def paths(log_probs: np.ndarray, labels: list[int], blank: int = BLANK) -> Iterator[tuple[float, tuple[int, ...]]]:
    """ln p of every path [T, V] that says the labels, and the path."""
    frames, classes = log_probs.shape
    for path in product(range(classes), repeat=frames):
        if said(path, blank) == labels:
            yield float(sum(log_probs[t, label] for t, label in enumerate(path))), path


def nll(log_probs: np.ndarray, labels: list[int], blank: int = BLANK) -> float:
    """-ln of the sum of all paths."""
    total = sum(math.exp(log_p) for log_p, _ in paths(log_probs, labels, blank))
    return -math.log(total) if total else math.inf


def best(log_probs: np.ndarray, labels: list[int], blank: int = BLANK) -> tuple[float, list[list[int]]]:
    """ln p of the best path, and first and one-past-last frame of every label on it."""
    log_p, path = max(paths(log_probs, labels, blank))
    spans, at = [], 0
    for label, run in groupby(path):
        length = len(list(run))
        if label != blank:
            spans.append([at, at + length])
        at += length
    return log_p, spans


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of ln p, in float64."""
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


LABELS = ([1, 2], [1, 1], [2], [], [2, 1, 1, 2], [1, 2, 1], [1, 1, 1])
"""Repetitions, none at all, one that fills its frames, and two that do not fit (4 labels with an equal pair in 4
frames, 3 equal ones in 4)."""
FRAMES = (5, 3, 4, 3, 4, 3, 4)


def rows() -> dict[str, np.ndarray]:
    """All of them in one batch of 6 frames and 5 labels, three classes; NaN and labels out of place in the padding."""
    rng = np.random.default_rng(0)
    logits = (2 * rng.standard_normal((len(LABELS), 6, 3))).astype(np.float32)
    frame_mask = np.arange(6) < np.array(FRAMES)[:, None]
    labels = rng.integers(1, 3, (len(LABELS), 5)).astype(np.int32)
    for row, own in enumerate(LABELS):
        labels[row, : len(own)] = own
    logits[~frame_mask] = np.nan
    label_mask = np.arange(5) < np.array([len(own) for own in LABELS])[:, None]
    return {"logits": logits, "frame_mask": frame_mask, "labels": labels, "label_mask": label_mask}
