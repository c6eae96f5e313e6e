"""The one place where a config's dtype string becomes a dtype."""

from typing import Any

import jax.numpy as jnp

from slm_jax.core.errors import require

COMPUTE_DTYPES = ("float32", "bfloat16", "float64")
"""float64 is for telling rounding from a mistake; JAX has it only while `jax_enable_x64` is set."""


def compute_dtype(name: str) -> Any:
    """The dtype behind a config's `dtype` field; raises `UserError` for any other name."""
    require(name in COMPUTE_DTYPES, "dtype", name, f"must be one of {', '.join(COMPUTE_DTYPES)}")
    return jnp.dtype(name)


def at_least_float32(dtype: Any) -> Any:
    """The dtype of norms, softmax and logits: float32 for narrow inputs, the inputs' own for wide ones."""
    return jnp.promote_types(dtype, jnp.float32)
