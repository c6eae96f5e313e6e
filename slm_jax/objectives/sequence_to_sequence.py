"""The objective of encoder-decoders: what is written, given what is read."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.objectives.next_token import NextTokenConfig, summed

FIELDS = ("ids", "mask", "decoder_ids", "targets", "target_mask")


@dataclasses.dataclass(frozen=True)
class SequenceToSequence:
    """Cross-entropy of every written token, given those before it and all that is read.

    The batch holds `ids` `[B, L]` with `mask`, what is read, and `decoder_ids` `[B, S]` with what follows each,
    `targets`, and which of these count, `target_mask`. `model`: a `sequence_models` encoder-decoder. Counts targets;
    metrics `nll` (nats per token) and `accuracy`.
    """

    model: Any
    config: NextTokenConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        ids, mask, written, targets, counted = (jnp.asarray(batch[name]) for name in FIELDS)
        rngs = None if rng is None else {"dropout": rng}
        given = (ids, written, mask, counted)
        features = self.model.apply(variables, *given, deterministic=rng is None, rngs=rngs, method="hidden")
        sums = summed(self.model, self.config, variables, features, targets, counted)
        count = counted.sum(dtype=jnp.float32)
        return Loss({"tokens": Term(sums.loss, count)}, {"nll": (sums.nll, count), "accuracy": (sums.correct, count)})
