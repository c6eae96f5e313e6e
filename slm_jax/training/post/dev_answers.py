"""What a speech-aware LM makes of held-out answers while it is trained, and of the same after other speech."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.data.examples.speech_prompts import stacked
from slm_jax.objectives.answers import Answers
from slm_jax.training.loop import Evaluate

HEARD = ("sample", "feature")
"""How the names of what is heard begin."""


def on_answers(objective: Answers, rows: Sequence[dict[str, np.ndarray]], size: int) -> Evaluate | None:
    """Nats per word of the answers of `rows`, and with the speech of other rows; None for fewer rows than `size`.

    Batches of `size` rows; rows that fill none are left out.
    """
    batches = [stacked(rows[start : start + size]) for start in range(0, len(rows) - size + 1, size)]
    loss = jax.jit(lambda variables, frozen, batch: objective(variables, batch, None, frozen).terms["answer"])

    def evaluate(state: Any, frozen: Any) -> dict[str, float]:
        own = [loss(state.served, frozen, batch) for batch in batches]
        other = [loss(state.served, frozen, with_other_speech(batch)) for batch in batches]
        return {"nats_per_word": _mean(own), "nats_per_word_other_speech": _mean(other)}

    return evaluate if batches else None


def with_other_speech(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every row with the clips of the next one; where those are shorter, the missing entries are not real."""
    return {name: np.roll(value, -1, axis=0) if name.startswith(HEARD) else value for name, value in batch.items()}


def _mean(terms: Sequence[Any]) -> float:
    return float(sum(term.total for term in terms) / sum(term.count for term in terms))
