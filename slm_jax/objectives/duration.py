"""Durations of deduplicated units: squared error on ln(frames + 1), as in FastSpeech 2 and unit vocoders.

Batch keys: `units [B, S]`, `durations [B, S]` (frames), `mask [B, S]`; `loss_mask [B, S]` where some real units have
durations that should not be learned (a run cut by the edge of a crop). The vocoder is the part `generator`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.contracts import Loss, Term
from slm_jax.core.trees import PathPredicate, matching, variables_of
from slm_jax.decoders.unit_vocoder import UnitVocoder

OWNS_DURATIONS: PathPredicate = matching("params/generator/durations/")
"""The predictor alone: the unit vectors stay as the vocoder left them."""


class DurationObjective:
    """What the duration predictor minimises. Counts units."""

    owns = staticmethod(OWNS_DURATIONS)

    def __init__(self, vocoder: UnitVocoder) -> None:
        self.vocoder = vocoder

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        predicted = self.vocoder.apply(
            variables_of(variables, "generator"),
            batch["units"],
            batch["mask"],
            deterministic=False,
            rngs={"dropout": rng},
            method=self.vocoder.log_durations,
        )
        counted = batch.get("loss_mask", batch["mask"]).astype(bool)
        error = jnp.square(predicted - jnp.log1p(batch["durations"].astype(jnp.float32)))
        total, count = jnp.where(counted, error, 0.0).sum(), counted.sum().astype(jnp.float32)
        frames = jnp.maximum(1.0, jnp.round(jnp.expm1(predicted)))
        missed = jnp.where(counted, jnp.abs(frames - batch["durations"]), 0.0).sum()
        metrics = {"duration": (total, count), "frames_off": (missed, count)}
        return Loss({"duration": Term(total, count)}, metrics)
