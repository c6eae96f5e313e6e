"""What stages over several streams share: one model that reads the tokens of a stage, one term of the loss for each."""

import jax
import jax.numpy as jnp

from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.schemes.table import Scheme
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig
from slm_jax.training.gradient_stage import GradientStageConfig, Learner
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig
from slm_jax.training.step import Player


class StreamsStageConfig(GradientStageConfig):
    """Trains `model` on the tokens of stage `tokens`.

    `weights`: of each stream in the loss; None: all alike. `apart`: of so many first streams the loss is added to the
    mean over the others.
    """

    tokens: str
    model: MultiStreamConfig | TemporalDepthConfig
    weights: tuple[float, ...] | None = None
    apart: int = 0

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.tokens,)

    def model_of(self, folder: StageFolder) -> tuple[MultiStreamConfig | TemporalDepthConfig, str]:
        return self.model, ""

    def planned_model(self, run: RunConfig) -> MultiStreamConfig | TemporalDepthConfig:
        return self.model

    def learner(self, names: tuple[str, ...]) -> Learner:
        """Who learns, of streams that are called so."""
        model = self.model.make()
        objective = NextStreamsConfig(names=names, weights=self.weights or (1.0,) * len(names), apart=self.apart)
        player = Player(name="lm", objective=objective.make(model), optimizer=self.optimizer)

        def initialise(key: jax.Array) -> dict:
            return model.init(key, jnp.zeros((1, 2, len(names)), jnp.int32))

        return initialise, [player]


def require_order(scheme: Scheme, model: MultiStreamConfig | TemporalDepthConfig) -> None:
    """Raise `UserError` for a scheme whose entries are written in order, of a model that writes them at once.

    A model with a depth transformer goes with any scheme: Moshi's books are late and written in order.
    """
    fits = isinstance(model, TemporalDepthConfig) or not scheme.ordered
    require(fits, "scheme", type(scheme).__name__, "entries of a step in order need a model with a depth transformer")


def names_of(spec: TokenSpec) -> tuple[str, ...]:
    """What the streams are called."""
    return tuple(book.name for book in spec.codebooks)
