"""Masked prediction: the cluster of hidden frames (HuBERT, Hsu et al. 2021)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.errors import require
from slm_jax.encoders.output import EncoderOutput
from slm_jax.encoders.ssl_pretraining import HubertPretraining
from slm_jax.objectives.cross_entropy import Terms, TokenSums, token_sums


class MaskedPredictionConfig(Config):
    """`unmasked_weight`: weight of the frames that were not hidden, those hidden weigh 1 (0 in the paper; small runs
    only leave the plateau with some). `feature_penalty`: weight of the mean square of the front end's output (10 in
    the paper's recipe)."""

    unmasked_weight: float = 0.0
    feature_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("unmasked_weight", "feature_penalty"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must not be negative")

    def make(self, model: HubertPretraining) -> "MaskedPrediction":
        """The objective for `model`."""
        return MaskedPrediction(model, self)


@dataclasses.dataclass(frozen=True)
class MaskedPrediction:
    """Cross-entropy of the labels of frames, weighed by whether the frame was hidden.

    The batch holds `samples` `[B, N]`, `sample_mask` `[B, N]`, `labels` `[B, T]` int32, `label_mask` `[B, T]` and
    `span_mask` `[B, T]` (frames to hide). Dropout draws from `rng`; None switches it off. Terms: `prediction`, whose
    count is the summed weight, so that it is in nats per frame, and with a penalty `feature_penalty`, which counts real
    frames. Metrics, masked and unmasked: `nll` and `accuracy`; `feature_square`.
    """

    model: HubertPretraining
    config: MaskedPredictionConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        samples, sample_mask, span_mask = (jnp.asarray(batch[k]) for k in ("samples", "sample_mask", "span_mask"))
        rngs = None if rng is None else {"dropout": rng}
        logits, out = self.model.apply(variables, samples, sample_mask, span_mask, deterministic=rng is None, rngs=rngs)
        real = out.mask & jnp.asarray(batch["label_mask"])
        loss = masked_prediction(logits, jnp.asarray(batch["labels"]), real, span_mask, self.config.unmasked_weight)
        square, frames = _mean_square(out)
        terms = loss.terms
        if self.config.feature_penalty:
            terms = terms | {"feature_penalty": Term(square, frames, self.config.feature_penalty)}
        return Loss(terms, loss.metrics | {"feature_square": (square, frames)})


def masked_prediction(
    logits: Float[Array, "B T V"],
    labels: Int[Array, "B T"],
    real: Bool[Array, "B T"],
    span_mask: Bool[Array, "B T"],
    unmasked_weight: float,
) -> Loss:
    """Weighed cross-entropy (nats) over the `real` frames; where `real` is False nothing has an effect."""
    hidden, seen = real & span_mask, real & ~span_mask
    masked, unmasked = (token_sums(logits, labels, counted, Terms()) for counted in (hidden, seen))
    hidden_count, seen_count = hidden.sum(dtype=jnp.float32), seen.sum(dtype=jnp.float32)
    total = masked.loss + unmasked_weight * unmasked.loss
    metrics = _metrics("masked", masked, hidden_count) | _metrics("unmasked", unmasked, seen_count)
    return Loss({"prediction": Term(total, hidden_count + unmasked_weight * seen_count)}, metrics)


def _metrics(name: str, sums: TokenSums, count: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    return {f"{name}_nll": (sums.nll, count), f"{name}_accuracy": (sums.correct, count)}


def _mean_square(out: EncoderOutput) -> tuple[jax.Array, jax.Array]:
    """Sum over real frames of the mean square of the front end's channels, and the number of frames."""
    square = jnp.square(out.features.astype(jnp.float32)).mean(-1)
    return jnp.where(out.mask, square, 0.0).sum(), out.mask.sum(dtype=jnp.float32)
