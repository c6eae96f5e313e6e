"""What passes through our models, by the names that `interop.references` gives to the same places in PyTorch's."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.config import Config
from slm_jax.workbench.comparables import comparable_of


class Activation(NamedTuple):
    """Values [B, steps, ...] and which steps are real [B, steps]."""

    values: np.ndarray
    real: np.ndarray

    def kept(self) -> np.ndarray:
        """The real steps of all rows, one after the other."""
        return self.values[self.real]


Run = Callable[[Any, Mapping[str, np.ndarray]], dict[str, Activation]]


def runner(config: Any) -> Run:
    """`run(params, inputs)` -> name -> activation; compiled once per shape of the inputs."""
    collect = jax.jit(partial(comparable_of(config).collect, config.make()))

    def run(params: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, Activation]:
        found = collect(params, {name: _as_jax(value) for name, value in inputs.items()})
        return {name: Activation(np.asarray(values), np.asarray(real)) for name, (values, real) in found.items()}

    return run


def in_dtype(config: Any, dtype: str) -> Any:
    """The config with this compute dtype in all its parts that have one."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "dtype":
            changes["dtype"] = dtype
        elif isinstance(value, Config):
            changes[field.name] = in_dtype(value, dtype)
    return config.replace(**changes)


def _as_jax(value: np.ndarray) -> jax.Array:
    """Whole numbers become int32 also where JAX has 64 bits."""
    return jnp.asarray(value, jnp.int32) if np.issubdtype(value.dtype, np.integer) else jnp.asarray(value)
