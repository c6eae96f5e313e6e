"""The one place where a config's dtype string becomes a dtype."""

from typing import Any

import jax.numpy as jnp

from slm_jax.core.errors import require

COMPUTE_DTYPES = ("float32", "bfloat16")


def compute_dtype(name: str) -> Any:
    """The dtype behind a config's `dtype` field; raises `UserError` for any other name."""
    require(name in COMPUTE_DTYPES, "dtype", name, f"must be one of {', '.join(COMPUTE_DTYPES)}")
    return jnp.dtype(name)
