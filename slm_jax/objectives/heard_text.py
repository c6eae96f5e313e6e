"""p(text | speech): cross-entropy with attention and, beside it, CTC on the encoder (Watanabe et al. 2017)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.trees import together
from slm_jax.objectives.cross_entropy import Terms, TokenSums, chunked_token_sums, token_sums
from slm_jax.objectives.ctc import ctc_loss
from slm_jax.objectives.next_token import CHUNK, LARGE_VOCABULARY, NextTokenConfig
from slm_jax.token_compression.ctc import BLANK


@dataclasses.dataclass(frozen=True)
class HeardText:
    """(1 - w) times the nats per target, and w times those of CTC per letter; w is `ctc_weight`.

    `model`: a `TunedWhisper`, with adapters or without; what nobody trains of it may lie in `frozen["frozen"]`. The
    batch holds what `data.examples.whisper_targets` makes. `target_weight` says what the first term counts, each given
    the speech and all before it in its row. Rows without labels have no part in the second. Metrics `nll`, `accuracy`
    and, with CTC, `unfit` and `blanks` (see `ctc_loss`).
    """

    model: Any
    config: NextTokenConfig
    ctc_weight: float = 0.0

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        whole = together(variables, frozen)
        batch = {name: jnp.asarray(value) for name, value in batch.items()}
        fields = (batch[name] for name in ("samples", "sample_mask", "ids", "mask"))
        rngs = {"deterministic": rng is None, "rngs": None if rng is None else {"dropout": rng}}
        features, logits, real = self.model.apply(whole, *fields, **rngs)
        counted = batch["target_weight"][:, 1:].astype(jnp.float32)
        targets, counted = (jnp.pad(x, ((0, 0), (0, 1))) for x in (batch["ids"][:, 1:], counted))
        sums, count = self._sums(whole, features, targets, counted), counted.sum()
        terms = {"answer": Term(sums.loss, count, 1.0 - self.ctc_weight)}
        metrics = {"nll": (sums.nll, count), "accuracy": (sums.correct, count)}
        if logits is None:
            return Loss(terms, metrics)
        spelt = ctc_loss(logits, real, batch["labels"], batch["label_mask"], BLANK)
        terms["ctc"] = spelt.terms["ctc"]._replace(weight=self.ctc_weight)
        return Loss(terms, metrics | spelt.metrics)

    def _sums(self, variables: Variables, features: jax.Array, targets: jax.Array, counted: jax.Array) -> TokenSums:
        terms = Terms(self.config.label_smoothing, self.config.z_loss)
        decoder = self.model.config.whisper.decoder
        if decoder.vocabulary < LARGE_VOCABULARY:
            return token_sums(self.model.apply(variables, features, method="head"), targets, counted, terms)
        matrix = self.model.apply(variables, method="head_matrix")
        return chunked_token_sums(terms, CHUNK, features, matrix, targets, counted, decoder.tied_head)
