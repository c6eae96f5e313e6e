"""How likely a language model finds given sequences."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require

LENGTH_BUCKET, ROWS = 128, 16
"""Sequences are padded to multiples of this length and scored in batches of this many, so that few shapes compile."""


def sequence_log_probs(model: Any, params: Any, sequences: Sequence[np.ndarray]) -> list[Float[np.ndarray, "_"]]:
    """ln p of every token after the first, given those before it, for each sequence of ids.

    The mean over a sequence is what sWUGGY, sBLIMP and the like compare; the first token (`<s>`) is given. `params` may
    be all variables, `{"params": ..., "lora": ...}`. Raises `UserError` for a sequence that is longer than the model's
    positions reach.
    """
    limit = getattr(model.config, "max_positions", None)
    for place, ids in enumerate(sequences):
        fits = limit is None or len(ids) <= limit
        require(fits, f"length of sequence {place}", len(ids), f"this model has {limit} positions")
    results: list[Any] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        longest = max(len(sequences[i]) for i in chosen)
        length = -(-longest // LENGTH_BUCKET) * LENGTH_BUCKET
        length = length if limit is None else min(length, limit)
        ids, mask = np.zeros((ROWS, length), np.int32), np.zeros((ROWS, length), bool)
        for row, i in enumerate(chosen):
            ids[row, : len(sequences[i])] = sequences[i]
            mask[row, : len(sequences[i])] = True
        scores = np.asarray(_log_probs(model, params, ids, mask))
        for row, i in enumerate(chosen):
            results[i] = scores[row, : len(sequences[i]) - 1]
    return results


def nats_per_token(model: Any, params: Any, sequences: Sequence[np.ndarray]) -> float:
    """Mean negative log-likelihood over all predicted tokens, the end token counted."""
    return float(-np.concatenate(sequence_log_probs(model, params, sequences)).mean())


@partial(jax.jit, static_argnums=0)
def _log_probs(model: Any, params: Any, ids: Int[Array, "B S"], mask: Bool[Array, "B S"]) -> Float[Array, "B S-1"]:
    variables = params if "params" in params else {"params": params}
    logits = model.apply(variables, ids, mask=mask)[:, :-1]
    picked = jnp.take_along_axis(logits, ids[:, 1:, None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)
