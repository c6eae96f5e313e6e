"""Connectionist temporal classification: labels without times (Graves et al. 2006)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Loss, Term, Variables
from slm_jax.core.trees import together
from slm_jax.token_compression.ctc_states import (
    IMPOSSIBLE,
    came_from,
    end_states,
    frames_needed,
    picked,
    start_states,
    with_blanks,
)


def ctc_nll(
    logits: Float[Array, "B T V"],
    frame_mask: Bool[Array, "B T"],
    labels: Int[Array, "B L"],
    label_mask: Bool[Array, "B L"],
    blank: int = 0,
    zero_infinity: bool = False,
) -> Float[Array, "B"]:
    """-ln p(labels) of each right-padded row (nats, float32), summed over all paths; `logits` need no normalising.

    Labels that do not fit into the frames of their row (one each, and a blank between equal neighbours), or whose
    every path has a logit of -inf, have probability 0: their row gives inf, or 0 with `zero_infinity`, and either way
    no gradient. What stands in padding has no effect, NaN included. Reference: `torch.nn.functional.ctc_loss`.
    """
    symbols, may_skip = with_blanks(labels, label_mask, blank)
    logits = jnp.where(frame_mask[..., None], logits.astype(jnp.float32), 0.0)
    emitted = jnp.take_along_axis(logits, symbols[:, None, :], axis=2) - jax.nn.logsumexp(logits, axis=2, keepdims=True)
    emitted = jnp.maximum(emitted, IMPOSSIBLE)

    def forward(before: Float[Array, "B S"], frame: tuple[Array, Array]) -> tuple[Array, None]:
        scores, real = frame
        here = jax.nn.logsumexp(came_from(before, may_skip), axis=0) + scores
        return jnp.where(real[:, None], here, before), None

    last, _ = jax.lax.scan(forward, start_states(*symbols.shape), (emitted.swapaxes(0, 1), frame_mask.T))
    blank_end, label_end = end_states(label_mask)
    in_label = jnp.where(label_mask.any(1), picked(last, label_end), IMPOSSIBLE)
    nll = -jnp.logaddexp(picked(last, blank_end), in_label)
    possible = (frames_needed(labels, label_mask) <= frame_mask.sum(1)) & ~(nll > -IMPOSSIBLE / 2)  # NaN stays NaN
    return jnp.where(possible, nll, 0.0 if zero_infinity else jnp.inf)


class CTCConfig(Config):
    """`blank`: the class that stands for no label."""

    blank: int = 0

    def make(self, model: Any) -> "CTC":
        """The objective for `model`."""
        return CTC(model, self)


@dataclasses.dataclass(frozen=True)
class CTC:
    """-ln p of the labels of an utterance, in nats per label.

    `model(samples, sample_mask)` gives logits `[B, T, V]` and their mask. The batch holds `samples` `[B, N]`,
    `sample_mask` `[B, N]`, `labels` `[B, L]` int32 and `label_mask` `[B, L]`. Rows whose labels do not fit are left
    out of the loss and counted in the metric `unfit` (share of rows). Parts that nobody trains may lie in
    `frozen["frozen"]`. Dropout draws from `rng`; None switches it off.
    """

    model: Any
    config: CTCConfig

    def __call__(self, variables: Variables, batch: Batch, rng: jax.Array | None, frozen: Any = None) -> Loss:
        fields = ("samples", "sample_mask", "labels", "label_mask")
        samples, sample_mask, labels, label_mask = (jnp.asarray(batch[name]) for name in fields)
        rngs = None if rng is None else {"dropout": rng}
        whole = together(variables, frozen)
        logits, mask = self.model.apply(whole, samples, sample_mask, deterministic=rng is None, rngs=rngs)
        return ctc_loss(logits, mask, labels, label_mask, self.config.blank)


def ctc_loss(
    logits: Float[Array, "B T V"],
    frame_mask: Bool[Array, "B T"],
    labels: Int[Array, "B L"],
    label_mask: Bool[Array, "B L"],
    blank: int = 0,
) -> Loss:
    """Term `ctc`, whose count is the labels of the rows that have any and fit; metrics `unfit` and `blanks`.

    `blanks`: the share of frames whose best class is the blank.
    """
    nll = ctc_nll(logits, frame_mask, labels, label_mask, blank)
    asked = label_mask.any(1)
    fits = asked & ~jnp.isinf(nll)
    count = jnp.where(fits[:, None], label_mask, False).sum(dtype=jnp.float32)
    total = jnp.where(fits, nll, 0.0).sum()
    silent = frame_mask & (logits.argmax(-1) == blank)
    metrics = {
        "unfit": ((asked & ~fits).sum(dtype=jnp.float32), asked.sum(dtype=jnp.float32)),
        "blanks": (silent.sum(dtype=jnp.float32), frame_mask.sum(dtype=jnp.float32)),
    }
    return Loss({"ctc": Term(total, count)}, metrics)
