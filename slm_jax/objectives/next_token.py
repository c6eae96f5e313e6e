"""The next-token objective of language models."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.errors import require
from slm_jax.objectives.cross_entropy import Terms, TokenSums, chunked_token_sums, token_sums

FIELDS = ("ids", "mask", "segment_ids", "positions", "target_mask", "target_weight")
"""What the objective reads of a batch; other entries are left alone."""

LARGE_VOCABULARY = 8192
"""From so many words on, logits are made and used up in chunks unless the config says otherwise."""
CHUNK = 256


class NextTokenConfig(Config):
    """`chunk`: steps of time whose logits exist at once; None: all; "auto": `CHUNK` of a large vocabulary, else all."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    chunk: int | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        smoothing = self.label_smoothing
        require(0.0 <= smoothing < 1.0, "label_smoothing", smoothing, "must lie in [0, 1)")
        require(self.z_loss >= 0.0, "z_loss", self.z_loss, "must not be negative")
        known = self.chunk in (None, "auto") or (isinstance(self.chunk, int) and self.chunk >= 1)
        require(known, "chunk", self.chunk, "must be at least 1, auto or None")

    def make(self, model: Any) -> "NextToken":
        """The objective for `model`, a `sequence_models` decoder."""
        return NextToken(model, self)


@dataclasses.dataclass(frozen=True)
class NextToken:
    """Cross-entropy of every token given those before it in its row or segment.

    The batch holds `ids` `[B, S]` int32 and optionally `mask` `[B, S]` (real entries), `segment_ids` `[B, S]` (rows
    packed from several examples; 0 is padding), `positions` `[B, S]`, `target_mask` `[B, S]` (tokens that count
    as targets) and `target_weight` `[B, S]` float (by how much; not below 0). The first token of a row or segment is
    no target. The count is the number of targets, or the sum of their weights. Dropout draws from `rng`; None switches
    it off. Metrics: `nll` (nats per token) and `accuracy`.
    """

    model: Any
    config: NextTokenConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        batch = {name: jnp.asarray(batch[name]) for name in FIELDS if name in batch}
        ids, mask, segments = batch["ids"], batch.get("mask"), batch.get("segment_ids")
        if mask is None and segments is not None:
            mask = segments != 0
        features = self.model.apply(
            variables,
            ids,
            batch.get("positions"),
            segments,
            mask,
            deterministic=rng is None,
            rngs=None if rng is None else {"dropout": rng},
            method="hidden",
        )
        counted = counted_targets(ids, mask, segments, batch.get("target_mask"))
        if "target_weight" in batch:
            counted = counted * batch["target_weight"][:, 1:].astype(jnp.float32)
        # all of the row, the last entry without a target: time keeps a length that devices and lanes divide
        targets, counted = (jnp.pad(x, ((0, 0), (0, 1))) for x in (ids[:, 1:], counted))
        sums = summed(self.model, self.config, variables, features, targets, counted)
        count = counted.sum(dtype=jnp.float32)
        metrics = {"nll": (sums.nll, count), "accuracy": (sums.correct, count)}
        return Loss({"tokens": Term(sums.loss, count)}, metrics)


def summed(
    model: Any,
    config: NextTokenConfig,
    variables: Variables,
    features: jax.Array,
    targets: jax.Array,
    counted: jax.Array,
) -> TokenSums:
    """Sums over the counted targets, from what the head of `model` reads; logits whole or in chunks."""
    terms, chunk = Terms(config.label_smoothing, config.z_loss), config.chunk
    if chunk == "auto":
        chunk = CHUNK if model.config.vocabulary >= LARGE_VOCABULARY else None
    if chunk is None:
        return token_sums(model.apply(variables, features, method="head"), targets, counted, terms)
    matrix = model.apply(variables, method="head_matrix")
    return chunked_token_sums(terms, chunk, features, matrix, targets, counted, model.config.tied_head)


def counted_targets(
    ids: Int[Array, "B S"],
    mask: Bool[Array, "B S"] | None = None,
    segment_ids: Int[Array, "B S"] | None = None,
    target_mask: Bool[Array, "B S"] | None = None,
) -> Bool[Array, "B S-1"]:
    """Entry t: is token t + 1 a target? Real, predicted from a real token of its own segment, and wanted."""
    counted = jnp.ones((ids.shape[0], ids.shape[1] - 1), bool)
    if mask is not None:
        counted = counted & mask[:, 1:] & mask[:, :-1]
    if segment_ids is not None:
        counted = counted & (segment_ids[:, 1:] == segment_ids[:, :-1])
    return counted if target_mask is None else counted & target_mask[:, 1:]
