"""HuBERT pre-training: predict the cluster of hidden frames (Hsu et al. 2021)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.errors import require
from slm_jax.encoders.ssl import EncoderOutput, SSLEncoder, SSLEncoderConfig
from slm_jax.nn.linear import Linear, logits_float32
from slm_jax.objectives.cross_entropy import Terms, TokenSums, token_sums

COSINE_FLOOR = 1e-8


class HubertPretrainingConfig(Config):
    """An encoder with a head over `classes` clusters.

    `head`: "linear" (softmax over a linear map, converges fast in small runs) or "cosine" (HuBERT's: cosine between
    a projection to `head_width` and a learnt embedding of each class, divided by `temperature`).
    """

    encoder: SSLEncoderConfig = SSLEncoderConfig()
    classes: int = 100
    head: str = "cosine"
    head_width: int = 256
    temperature: float = 0.1

    def __post_init__(self) -> None:
        require(self.classes >= 2, "classes", self.classes, "must be at least 2")
        require(self.head in ("linear", "cosine"), "head", self.head, "must be 'linear' or 'cosine'")
        require(self.temperature > 0, "temperature", self.temperature, "must be positive")

    def make(self) -> "HubertPretraining":
        """The module."""
        return HubertPretraining(self)


class HubertPretraining(nn.Module):
    """Encoder (parameters under `encoder`, which are those of `config.encoder.make()`) and head."""

    config: HubertPretrainingConfig

    @nn.compact
    def __call__(
        self,
        samples: Float[Array, "B N"],
        mask: Bool[Array, "B N"] | None = None,
        span_mask: Bool[Array, "B T"] | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T V"], EncoderOutput]:
        """Float32 class scores of every frame, and what the encoder gave."""
        encoder = SSLEncoder(self.config.encoder, name="encoder")
        out = encoder(samples, mask, span_mask, deterministic=deterministic)
        head = self._cosine if self.config.head == "cosine" else self._linear
        return head(out.values), out

    def _linear(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        scores = Linear(self.config.classes, ("embed",), ("codebook",), dtype=x.dtype, name="classifier")(x)
        return scores.astype(jnp.float32)

    def _cosine(self, x: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        c = self.config
        projected = Linear(c.head_width, ("embed",), (None,), dtype=x.dtype, name="final_projection")(x)
        init = nn.with_logical_partitioning(nn.initializers.uniform(1.0), ("codebook", None))
        classes = self.param("class_embedding", init, (c.classes, c.head_width), jnp.float32)
        return logits_float32(_unit(projected), _unit(classes).T) / c.temperature


def _unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Vectors of length 1, in float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), COSINE_FLOOR**2))


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
