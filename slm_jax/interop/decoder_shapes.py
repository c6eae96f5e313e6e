"""What the decoder families share: abstract parameters, rules of heads, a config in its plainest form."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from slm_jax.interop.table import Rule, weights
from slm_jax.interop.transforms import FLAT, Dense, Rotary, Transform
from slm_jax.sequence_models.decoder_config import DecoderConfig

BLOCKS = "blocks/layers"


def abstract_params(config: DecoderConfig) -> Any:
    """Shapes and dtypes of the decoder's parameters; nothing is computed."""
    return meta.unbox(boxed_params(config))


def boxed_params(config: DecoderConfig) -> Any:
    """`abstract_params` in the boxes that hold the logical axes."""
    ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(config.make().init, jax.random.key(0), ids)["params"]


def plain(config: DecoderConfig) -> DecoderConfig:
    """The same model with widths left to their defaults where they are the defaults."""
    return config.replace(
        kv_heads=None if config.groups == config.heads else config.groups,
        head_width=None if config.channels * config.heads == config.width else config.channels,
        embed_width=None if config.table_width == config.width else config.table_width,
    )


def projections(source: str, names: tuple[str, str, str, str], pairs: bool = False) -> tuple[Rule, ...]:
    """Query, key, value and output maps below `source`; `pairs`: rotary channels lie side by side in the source."""
    into, bias = Dense(), FLAT
    turned: tuple[Transform, Transform] = (Rotary(into), Rotary(bias)) if pairs else (into, bias)
    query, key, value, out = names
    at = f"{BLOCKS}/attention"
    return (
        *weights(f"{source}.{query}", f"{at}/query", *turned),
        *weights(f"{source}.{key}", f"{at}/key", *turned),
        *weights(f"{source}.{value}", f"{at}/value", into, bias),
        *weights(f"{source}.{out}", f"{at}/out", Dense(inputs=2), bias),
    )
