"""Prompts as decoding reads them: checked, packed to the left, in arrays of few lengths."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.types import NO_ID
from slm_jax.generation.advance import has_streams, stack_width, stream_sizes

PROMPT_BUCKET = 32
"""Prompt lengths are rounded up to multiples of this, so that few programs are compiled."""

Prompts = tuple[Any, Any]
"""Ids `[B, L]` or `[B, L, K1]` (where an entry may be `EMPTY`), or vectors `[B, L, D]`, and which are real `[B, L]`."""


def prepared(model: Any, given: Prompts, unconditional: Prompts | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Prompts and their mask, packed; each followed by the one without its condition where there is one.

    Raises `UserError` for an empty prompt, for wrong shapes and for ids outside the vocabulary.
    """
    values, mask = _checked(model, given)
    if unconditional is None:
        return _packed(values, mask)
    others, other_mask = _checked(model, unconditional)
    same = values.shape[0] == others.shape[0] and values.shape[2:] == others.shape[2:]
    require(same, "unconditional", others.shape, f"as many rows as the prompts {values.shape}, of their kind")
    length = max(values.shape[1], others.shape[1])
    pairs = [np.stack(pair, 1) for pair in zip(_to(length, values, mask), _to(length, others, other_mask), strict=True)]
    return _packed(*(pair.reshape(-1, *pair.shape[2:]) for pair in pairs))


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """One key for each row: `key` split, or as it is where it holds one for each; raises `UserError` otherwise."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    require(bool(typed), "key", f"{key.dtype} {key.shape}", "must be made by jax.random.key, not by PRNGKey")
    keys = key if key.ndim == 1 else jax.random.split(key, rows)
    require(len(keys) == rows, "keys", len(keys), f"must be one, or one for each of the {rows} rows")
    return keys


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple


def padded_rows(inputs: Any, rows: int, multiple: int) -> Any:
    """Every array with its last rows said again, until the number of `rows` divides; two rows for one are a pair."""
    missing = -rows % multiple

    def more(leaf: Any) -> Any:
        size = len(leaf) // rows
        return jnp.concatenate([leaf, *[leaf[-size:]] * missing]) if missing else leaf

    return jax.tree.map(more, inputs)


def _checked(model: Any, given: Prompts) -> Prompts:
    values, mask = np.asarray(given[0]), np.asarray(given[1], bool)
    vectors = np.issubdtype(values.dtype, np.floating) or values.dtype.name == "bfloat16"
    numbers = vectors or np.issubdtype(values.dtype, np.integer)
    require(bool(numbers), "prompts", str(values.dtype), "must be ids (integers) or vectors (floating point)")
    deep = vectors or has_streams(model)
    shaped = values.ndim == (3 if deep else 2) and values.shape[:2] == mask.shape
    require(shaped, "prompts", values.shape, f"must be {'[B, L, ...]' if deep else '[B, L]'} as their mask")
    lengths = mask.sum(1)
    require(bool(np.all(lengths > 0)), "prompt lengths", lengths.tolist(), "every prompt needs at least one token")
    if vectors:
        width = stack_width(model)
        require(values.shape[2] == width, "prompts", values.shape, f"vectors of the stack's width {width}")
        return values, mask
    sizes = stream_sizes(model)
    known = not deep or values.shape[2] == len(sizes)
    require(known, "prompts", values.shape, f"this model has {len(sizes)} streams")
    known = (values >= 0) & (values < (np.array(sizes) if deep else sizes[0]))
    outside = values[~known & ~(deep & np.isin(values, NO_ID))]
    rule = f"must lie in [0, {sizes[0]})" if len(sizes) == 1 else f"must lie in the sizes {sizes}"
    require(outside.size == 0, "prompt ids", outside[:5].tolist(), rule)
    return values.astype(np.int32), mask


def _packed(values: np.ndarray, mask: np.ndarray) -> Prompts:
    """Moved to the left of a bucket-sized array, zeros after them."""
    lengths = mask.sum(1)
    packed = np.zeros((len(values), round_up(int(lengths.max()), PROMPT_BUCKET), *values.shape[2:]), values.dtype)
    packed_mask = np.arange(packed.shape[1]) < lengths[:, None]
    packed[packed_mask] = values[mask]
    return packed, packed_mask


def _to(length: int, values: np.ndarray, mask: np.ndarray) -> Prompts:
    missing = ((0, 0), (0, length - values.shape[1]))
    return np.pad(values, (*missing, *[(0, 0)] * (values.ndim - 2))), np.pad(mask, missing)
