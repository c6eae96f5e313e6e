"""The objective of speech-aware language models: the words of an answer, given speech and words before it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.trees import joined
from slm_jax.core.types import Frames
from slm_jax.objectives.cross_entropy import Terms, TokenSums, chunked_token_sums, token_sums
from slm_jax.objectives.next_token import CHUNK, LARGE_VOCABULARY, NextTokenConfig


@dataclasses.dataclass(frozen=True)
class Answers:
    """Cross-entropy of the entries that `target_weight` counts, each given all before it in its row.

    The batch holds what `data.examples.speech_prompts` makes: `ids`, `speech_at`, `mask`, `target_weight` `[B, S]`, and
    either `samples` with `sample_mask` `[B, C, N]` or the encoders' `features` `[B, C, T, E]` with `feature_mask`.
    `model`: a `SpeechAwareLM`, with adapters or without; its parts lie in `variables` or, those that nobody trains, in
    `frozen["frozen"]`. Counts the weights; metrics `nll` (nats per target) and `accuracy`.
    """

    model: Any
    config: NextTokenConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        whole = together(variables, frozen)
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        rngs = {"deterministic": rng is None, "rngs": None if rng is None else {"dropout": rng}}
        features = self.model.apply(whole, batch, method=_features, **rngs)
        counted = batch["target_weight"][:, 1:].astype(jnp.float32)
        targets, counted = (jnp.pad(x, ((0, 0), (0, 1))) for x in (batch["ids"][:, 1:], counted))
        sums = self._sums(whole, features, targets, counted)
        count = counted.sum()
        return Loss({"answer": Term(sums.loss, count)}, {"nll": (sums.nll, count), "accuracy": (sums.correct, count)})

    def _sums(self, variables: Variables, features: jax.Array, targets: jax.Array, counted: jax.Array) -> TokenSums:
        terms = Terms(self.config.label_smoothing, self.config.z_loss)
        if self.model.config.vocabulary < LARGE_VOCABULARY:
            return token_sums(self.model.apply(variables, features, method="head"), targets, counted, terms)
        matrix = self.model.apply(variables, method="head_matrix")
        return chunked_token_sums(terms, CHUNK, features, matrix, targets, counted)


def together(variables: Variables, frozen: Any) -> dict[str, Any]:
    """All variables of a model whose frozen parts are kept apart, in `frozen["frozen"]`, under the same names."""
    parts = (frozen or {}).get("frozen", {})
    return {**variables, "params": joined(variables["params"], parts)}


def _features(model: Any, batch: Batch, *, deterministic: bool) -> jax.Array:
    """What the head reads."""
    if "features" in batch:
        values, mask = batch["features"], batch["feature_mask"]
        heard = Frames(values.reshape(-1, *values.shape[2:]), mask.reshape(-1, mask.shape[-1]))
    else:
        heard = model.heard(batch["samples"], batch["sample_mask"], deterministic=deterministic)
    speech = model.speech(heard, deterministic=deterministic)
    return model.hidden(batch["ids"], speech, batch["speech_at"], batch["mask"], deterministic=deterministic)
