"""Classes of speech: cross-entropy of every window.

Batch keys: `samples [B, N]`, `sample_mask [B, N]`, `label [B]`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from slm_jax.core.contracts import Loss, Term
from slm_jax.encoders.ssl_classifier import SSLClassifier


class ClassesObjective:
    """What a classifier minimises; counts windows. Metrics: `accuracy`."""

    def __init__(self, model: SSLClassifier) -> None:
        self.model = model

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        found = self.model.apply(
            variables, batch["samples"], batch["sample_mask"], deterministic=False, rngs={"dropout": rng}
        )
        labels = jnp.broadcast_to(batch["label"][:, None], found.mask.shape)
        crosses = optax.softmax_cross_entropy_with_integer_labels(found.logits, labels)
        count = found.mask.sum().astype(jnp.float32)
        right = (found.mask & (found.logits.argmax(-1) == labels)).sum().astype(jnp.float32)
        total = jnp.where(found.mask, crosses, 0.0).sum()
        return Loss({"classes": Term(total, count)}, {"classes": (total, count), "accuracy": (right, count)})
