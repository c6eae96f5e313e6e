"""How likely a model of several streams finds given codes."""

from collections.abc import Sequence
from functools import partial
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


@partial(jax.jit, static_argnums=0)
def _log_probs(model: Any, params: Any, ids: Int[Array, "B S K"]) -> Float[Array, "B S-1 K"]:
    logits, targets = model.apply({"params": params}, ids)[:, :-1], ids[:, 1:]
    picked = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(targets >= 0, picked - jax.nn.logsumexp(logits, axis=-1), 0.0)
