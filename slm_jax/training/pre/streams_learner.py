"""Who learns in a stage over several streams: one model, one term of the loss for each."""

from typing import Any

import jax
import jax.numpy as jnp

from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.schemes.table import Scheme
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.training.gradient_stage import Learner
from slm_jax.training.step import Player


def streams_learner(stage: Any, names: tuple[str, ...]) -> Learner:
    """Of a stage with a `model` over streams of these names and their `weights` (None: all alike)."""
    model = stage.model.make()
    objective = NextStreamsConfig(names=names, weights=stage.weights or (1.0,) * len(names))
    player = Player(name="lm", objective=objective.make(model), optimizer=stage.optimizer)

    def initialise(key: jax.Array) -> dict:
        return model.init(key, jnp.zeros((1, 2, len(names)), jnp.int32))

    return initialise, [player]


def require_order(scheme: Scheme, model: Any) -> None:
    """Raise `UserError` unless the entries of a step are written in order by both or by neither."""
    fits = isinstance(model, TemporalDepthConfig) == scheme.ordered
    rule = "entries of a step in order and a model with a depth transformer go together"
    require(fits, "scheme", type(scheme).__name__, rule)


def names_of(spec: TokenSpec) -> tuple[str, ...]:
    """What the streams are called."""
    return tuple(book.name for book in spec.codebooks)
