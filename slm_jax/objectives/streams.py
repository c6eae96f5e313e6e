"""Next ids of several streams at once, each stream a term of its own with its own weight.

With weights w the loss is sum_k w_k CE_k / n_k over sum_k w_k, to which streams that stand apart are added (Moshi,
Défossez et al. 2024, eq. 4: the text apart, the semantic book with 100, the others with 1): exact however a batch is
cut, since each term is divided once.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY
from slm_jax.objectives.cross_entropy import Terms, token_sums


class NextStreamsConfig(Config):
    """`names` of the streams, in their order, and how much each counts; a weight of 0 leaves a stream out.

    `apart`: so many of the first streams are no part of the mean but added to it, times their weights (Moshi: 1, the
    text).
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    apart: int = 0

    def __post_init__(self) -> None:
        rule = f"one for each of the streams {self.names}"
        require(len(self.weights) == len(self.names) > 0, "weights", self.weights, rule)
        require(len(set(self.names)) == len(self.names), "names", self.names, "must differ")
        good = all(weight >= 0 for weight in self.weights) and sum(self.weights) > 0
        require(good, "weights", self.weights, "0 or more, and not all 0")
        rest = sum(self.weights[self.apart :]) > 0
        require(0 <= self.apart < len(self.names) and rest, "apart", self.apart, "streams before those of the mean")

    @property
    def shares(self) -> tuple[float, ...]:
        """What the mean over each stream's entries weighs in the loss."""
        total = sum(self.weights[self.apart :])
        return (*self.weights[: self.apart], *(weight / total for weight in self.weights[self.apart :]))

    def make(self, model: Any) -> "NextStreams":
        """The objective for `model`, a `sequence_models.multi_stream` decoder."""
        streams = len(model.config.streams)
        require(len(self.names) == streams, "names", self.names, f"the model has {streams} streams")
        return NextStreams(model, self)


@dataclasses.dataclass(frozen=True)
class NextStreams:
    """Cross-entropy of every stream's id given all ids of earlier steps.

    The batch holds `ids` `[B, S, K1]` int32 (`EMPTY` where an entry holds nothing, which is no target) and `mask`
    `[B, S]` (real steps); optionally `target_weight` `[B, S, K1]` float, and `hidden` `[B, S, K1]`: entries that are
    targets and are read as if they were empty. The first step is no target. Metrics: `NAME_accuracy`.
    """

    model: Any
    config: NextStreamsConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        ids, mask = jnp.asarray(batch["ids"]), jnp.asarray(batch["mask"])
        rngs = None if rng is None else {"dropout": rng}
        read = jnp.where(jnp.asarray(batch["hidden"]), EMPTY, ids) if "hidden" in batch else ids
        logits = self.model.apply(variables, read, mask=mask, deterministic=rng is None, rngs=rngs)[:, :-1]
        counted = ((mask[:, 1:] & mask[:, :-1])[..., None] & (ids[:, 1:] >= 0)).astype(jnp.float32)
        targets = jnp.maximum(ids[:, 1:], 0)
        weights = counted * batch["target_weight"][:, 1:] if "target_weight" in batch else counted
        terms, metrics = {}, {}
        for k, (name, share) in enumerate(zip(self.config.names, self.config.shares, strict=True)):
            size = self.model.config.streams[k]
            sums = token_sums(logits[:, :, k, :size], targets[..., k], weights[..., k], Terms())
            count = weights[..., k].sum()
            terms[name] = Term(sums.loss, count, share)
            metrics[f"{name}_accuracy"] = sums.correct, count
        return Loss(terms, metrics)
