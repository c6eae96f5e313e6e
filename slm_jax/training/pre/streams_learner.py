"""Who learns in a stage over several streams: one model, one term of the loss for each."""

from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.token_spec import TokenSpec
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.training.gradient_stage import Learner
from slm_jax.training.step import Player


def streams_learner(stage: Any, spec: TokenSpec) -> Learner:
    """Of a stage with a `model` over the codebooks of `spec` and their `weights` (None: all alike)."""
    model, names = stage.model.make(), names_of(spec)
    objective = NextStreamsConfig(names=names, weights=stage.weights or (1.0,) * len(names))
    player = Player(name="lm", objective=objective.make(model), optimizer=stage.optimizer)

    def initialise(key: jax.Array) -> dict:
        return model.init(key, jnp.zeros((1, 2, len(names)), jnp.int32))

    return initialise, [player]


def names_of(spec: TokenSpec) -> tuple[str, ...]:
    """What the streams are called."""
    return tuple(book.name for book in spec.codebooks)
