"""Shapes of batches that nobody has read: what `make_batches` will give, known from the settings alone."""

from typing import Any

import jax
import numpy as np

from slm_jax.data.packing import PackingConfig

Shapes = dict[str, jax.ShapeDtypeStruct]


def stacked_shapes(example: dict[str, Any], rows: int) -> Shapes:
    """Batches of `rows` examples that all have the shapes of `example`."""
    shapes = {name: (np.shape(value), np.asarray(value).dtype) for name, value in example.items()}
    return _with_example({name: jax.ShapeDtypeStruct((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()})


def packed_shapes(example: dict[str, Any], packing: PackingConfig, rows: int) -> Shapes:
    """Batches of `rows` rows into which examples with the keys and dtypes of `example` are packed."""

    def entry(dtype: Any, *inner: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, packing.length, *inner), dtype)

    shapes = {name: entry(example[name].dtype, *np.shape(example[name])[1:]) for name in packing.keys}
    marks = {"segment_ids": entry(np.int32), "positions": entry(np.int32), "mask": entry(np.bool_)}
    return _with_example(shapes | marks)


def _with_example(shapes: Shapes) -> Shapes:
    rows = next(iter(shapes.values())).shape[0]
    return shapes | {"example": jax.ShapeDtypeStruct((rows,), np.int64)}
