"""Vocabulary expansion: a decoder that knew text gets rows for units, specials and task tags."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.core.errors import require
from slm_jax.sequence_models.decoder_config import DecoderConfig

TOKENS, HEAD = "tokens", "head_kernel"
"""Where a decoder keeps its table `[V, D]`, and its head `[D, V]` where that is a matrix of its own."""
AnyArray = Array | np.ndarray


def expanded(
    config: DecoderConfig, params: dict[str, Any], extra: int, key: jax.Array, multiple: int = 1
) -> tuple[DecoderConfig, dict[str, Any]]:
    """The decoder with `extra` more ids, which follow the `config.vocabulary` it has, and its parameters.

    Rows are added until the table's number of rows is a multiple of `multiple`, so that it shards evenly. Old rows stay
    to the bit. New ones are drawn from normal distributions, one for each channel, with the mean and the standard
    deviation of the old table: rows of a trained table share a large mean, and rows drawn around 0 would get other
    logits than any old id at first (Hewitt 2021, "Initializing new word embeddings", takes their full covariance). A
    head of its own gets columns in the same way. All other leaves are those of `params`, stacked or not. A table that
    is no array on devices becomes or stays one of NumPy.

    Raises `UserError` when `extra` or `multiple` is below 1, or when `params` are not those of `config`.
    """
    require(extra >= 1, "extra", extra, "new ids, at least 1")
    require(multiple >= 1, "multiple", multiple, "at least 1")
    rows = -(-(config.vocabulary + extra) // multiple) * multiple
    shape, keys = (config.vocabulary, config.table_width), jax.random.split(key)
    table = _checked(_array(params.get(TOKENS, {}).get("embedding")), f"{TOKENS}/embedding", shape)
    new: dict[str, Any] = {TOKENS: {**params[TOKENS], "embedding": with_rows(table, rows, keys[0])}}
    if not config.tied_head:
        head = _checked(_array(params.get(HEAD)), HEAD, shape[::-1])
        new[HEAD] = with_rows(head.T, rows, keys[1]).T
    return config.replace(vocabulary=rows), {**params, **new}


def with_rows(table: Float[AnyArray, "V D"], rows: int, key: jax.Array) -> Float[AnyArray, "{rows} D"]:
    """`table` [V, D] with as many drawn rows after it that there are `rows`; statistics are taken in float32."""
    xp: Any = jnp if isinstance(table, jax.Array) else np
    old = table.astype(np.float32)
    drawn = xp.asarray(jax.random.normal(key, (rows - len(table), table.shape[1]), jnp.float32))
    return xp.concatenate([table, (old.mean(0) + old.std(0) * drawn).astype(table.dtype)])


def _array(leaf: Any) -> Any:
    """A leaf that is stored or lazy is read."""
    return leaf if leaf is None or isinstance(leaf, jax.Array) else np.asarray(leaf)


def _checked(table: Any, name: str, wanted: tuple[int, int]) -> Any:
    """`table`, when it is there and has the shape that the config states."""
    found = None if table is None else tuple(table.shape)
    require(found == wanted, name, found, f"this config has {wanted}")
    return table
