"""How likely held-out answers of Whisper's tasks are, task by task, and the same beside other speech."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from slm_jax.core.contracts import Term
from slm_jax.data.examples.whisper_targets import without_targets
from slm_jax.objectives.heard_text import HeardText
from slm_jax.training.loop import Evaluate

Row = dict[str, np.ndarray]
HEARD = ("samples", "sample_mask")


def held_out_answers(objective: HeardText, rows: Mapping[str, Sequence[Row]], size: int) -> Evaluate:
    """Figures of `rows` by task, read `size` at once.

    `nats_per_token` of all answers, `nats_per_token/TASK`, `nats_per_token_other_speech` (each answer with the speech
    of the row before it), and with CTC `ctc_nats_per_letter`, `ctc_nats_per_letter_other_speech`.
    """
    tasks = {name: _batches(own, size) for name, own in rows.items() if own}
    loss = jax.jit(lambda variables, frozen, batch: objective(variables, batch, None, frozen).terms)

    def evaluate(state: Any, frozen: Any) -> dict[str, float]:
        own = {name: [loss(state.served, frozen, batch) for batch in some] for name, some in tasks.items()}
        other = [loss(state.served, frozen, _turned(batch)) for some in tasks.values() for batch in some]
        everything = [terms for some in own.values() for terms in some]
        figures = {"nats_per_token": _mean(everything), "nats_per_token_other_speech": _mean(other)}
        figures |= {f"nats_per_token/{name}": _mean(some) for name, some in own.items()}
        spelt = any(float(terms["ctc"].count) > 0 for terms in everything if "ctc" in terms)
        if not spelt:
            return figures
        letters = {"ctc_nats_per_letter": everything, "ctc_nats_per_letter_other_speech": other}
        return figures | {name: _mean(some, "ctc") for name, some in letters.items()}

    return evaluate


def _batches(rows: Sequence[Row], size: int) -> list[Row]:
    """All rows, the last batch filled up with rows that count for nothing."""
    filled = [*rows, *[without_targets(rows[-1])] * (-len(rows) % size)]
    return [_stacked(filled[start : start + size]) for start in range(0, len(filled), size)]


def _stacked(rows: Sequence[Row]) -> Row:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _turned(batch: Row) -> Row:
    """Every answer with the speech of the row before it, among those that count."""
    real = np.flatnonzero(batch["target_weight"].any(1))
    turned = np.arange(len(batch["ids"]))
    turned[real] = np.roll(real, 1)
    return {name: value[turned] if name in HEARD else value for name, value in batch.items()}


def _mean(found: Sequence[dict[str, Term]], name: str = "answer") -> float:
    total, count = (sum(float(getattr(terms[name], part)) for terms in found) for part in ("total", "count"))
    return total / count if count else float("nan")
