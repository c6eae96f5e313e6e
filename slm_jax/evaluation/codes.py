"""How likely a model of several streams finds given codes, and whether the books of a frame go together."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.core.types import EMPTY

ROWS = 8
"""Sequences that are scored at once."""


def code_log_probs(
    model: Any, params: Any, sequences: Sequence[Int[np.ndarray, "_ K"]], steps: int
) -> list[Float[np.ndarray, "_ K"]]:
    """ln p of every entry after the first step, given all that stands before it; 0 where an entry is empty.

    `steps`: of the longest sequence; all are read in batches of this length. Under one scheme these add up to ln p of
    the codes, whatever the scheme.
    """
    found = []
    for start in range(0, len(sequences), ROWS):
        chosen = sequences[start : start + ROWS]
        ids = np.full((ROWS, steps, chosen[0].shape[1]), EMPTY, np.int32)
        for row, sequence in enumerate(chosen):
            ids[row, : len(sequence)] = sequence
        scores = np.asarray(_log_probs(model, params, ids))
        found += [scores[row, : len(sequence) - 1] for row, sequence in enumerate(chosen)]
    return found


def nats_per_code(model: Any, params: Any, sequences: Sequence[Int[np.ndarray, "_ K"]], steps: int) -> dict[str, float]:
    """`nats_per_code`, and `nats_per_code_K` of every book."""
    scores = np.concatenate(code_log_probs(model, params, sequences, steps))
    real = np.concatenate([sequence[1:] >= 0 for sequence in sequences])
    by_book = {f"nats_per_code_{k}": float(-scores[:, k].sum() / real[:, k].sum()) for k in range(real.shape[1])}
    return {"nats_per_code": float(-scores.sum() / real.sum()), **by_book}


def nats_of_text_and_codes(
    model: Any,
    params: Any,
    rows: Sequence[Int[np.ndarray, "_ K1"]],
    steps: int,
    size: int,
    written: int | None = None,
) -> dict[str, float]:
    """`nats_per_text` id, `nats_per_mark` and `nats_per_code`, of rows with text of `size` ids in stream 0.

    `written`: how many of the first streams the model writes (None: all); of the others nothing is asked.
    """
    scores = np.concatenate(code_log_probs(model, params, rows, steps))[:, :written]
    ids = np.concatenate([row[1:] for row in rows])[:, :written]
    text, marks, codes = (ids[:, 0] >= 0) & (ids[:, 0] < size), ids[:, 0] >= size, ids[:, 1:] >= 0
    parts = {"text": scores[text, 0], "mark": scores[marks, 0], "code": scores[:, 1:][codes]}
    return {f"nats_per_{name}": float(-part.mean()) for name, part in parts.items() if part.size}


def books_agreement(
    frames: Int[np.ndarray, "N K"], known: Int[np.ndarray, "M K"], sizes: Sequence[int], prior: float = 20.0
) -> float:
    """By how many nats a code tells the next book's of its frame, in the mean over frames and neighbouring books.

    The mean of ln p(b | a) / p(b) over `frames`, both probabilities counted in `known`; the conditional one begins as
    p(b), which counts as much as `prior` frames. 0: codes that were drawn apart from each other; below: codes that
    exclude each other. A model that draws the books of a frame at once is known by it.
    """
    found = []
    for book, (size, next_size) in enumerate(pairwise(sizes)):
        joint = np.zeros((size, next_size))
        np.add.at(joint, (known[:, book], known[:, book + 1]), 1.0)
        alone = (joint.sum(0) + 0.5) / (joint.sum() + 0.5 * next_size)
        given = (joint + prior * alone) / (joint.sum(1, keepdims=True) + prior)
        a, b = frames[:, book], frames[:, book + 1]
        found.append(np.log(given[a, b] / alone[b]).mean())
    return float(np.mean(found))


@partial(jax.jit, static_argnums=0)
def _log_probs(model: Any, params: Any, ids: Int[Array, "B S K"]) -> Float[Array, "B S-1 K"]:
    logits, targets = model.apply({"params": params}, ids)[:, :-1], ids[:, 1:]
    picked = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(targets >= 0, picked - jax.nn.logsumexp(logits, axis=-1), 0.0)
