"""Abstract parameters of models over several streams, with or without a smaller one within a step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.core.types import Frames
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.sequence_models.temporal_depth import TemporalDepthConfig


def boxed_params(config: MultiStreamConfig | TemporalDepthConfig) -> Any:
    """Shapes and dtypes of the parameters with their logical axes; nothing is computed."""
    ids = jax.ShapeDtypeStruct((1, 2, len(config.streams)), jnp.int32)

    def initialise(key: jax.Array, ids: jax.Array) -> Any:
        width = config.body.context_width
        heard = None if width is None else Frames(jnp.zeros((1, 2, width)), jnp.ones((1, 2), bool))
        return config.make().init(key, ids, context=heard)

    return jax.eval_shape(initialise, jax.random.key(0), ids)["params"]


def abstract_params(config: MultiStreamConfig | TemporalDepthConfig) -> Any:
    """Shapes and dtypes of the parameters."""
    return meta.unbox(boxed_params(config))
