"""How likely the models of a cascade find given units and codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.schemes.cascade import Books, Cascade


def written_log_probs(
    cascade: Cascade, number: int, model: Any, params: Any, clips: Sequence[Books]
) -> list[Float[np.ndarray, "_"]]:
    """ln p of all that a pass writes of each clip (or chunk of one), its end among them, given what it reads."""
    rows = [cascade.row(number, books) for books in clips]
    scores = sequence_log_probs(model, params, [ids for ids, _ in rows])
    return [found[written[1:]] for found, (_, written) in zip(scores, rows, strict=True)]


def by_book(cascade: Cascade, number: int, scores: Float[np.ndarray, "S"]) -> Mapping[str, Float[np.ndarray, "_"]]:
    """The scores of what a pass writes, by book: units with their end, codes frame by frame without."""
    writes = cascade.passes[number].writes
    if writes == (cascade.units,):
        return {cascade.units: scores}
    codes = scores[:-1] if cascade.is_closed(number) else scores
    return {name: codes[place :: len(writes)] for place, name in enumerate(writes)}


def nats_by_book(cascade: Cascade, number: int, model: Any, params: Any, clips: Sequence[Books]) -> dict[str, float]:
    """Nats per entry of every book that a pass writes, over all clips (or chunks of them)."""
    scores = [by_book(cascade, number, one) for one in written_log_probs(cascade, number, model, params, clips)]
    return {name: float(-np.concatenate([one[name] for one in scores]).mean()) for name in scores[0]}
