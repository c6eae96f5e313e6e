"""What is made again and what is not: parts of a layer for the gradient, tables that everything reads."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from slm_jax.parallel.placement import platform


def recomputed(method: Callable[..., jax.Array], module: nn.Module, *inputs: Any) -> jax.Array:
    """`method(module, *inputs)`; of all that it makes only `inputs` are kept. Integers among these are static."""
    static = tuple(1 + place for place, value in enumerate(inputs) if isinstance(value, int))
    return nn.remat(method, static_argnums=static)(module, *inputs)


def made_once(make: Callable[[jax.Array], tuple[jax.Array, ...]], x: jax.Array) -> tuple[jax.Array, ...]:
    """`make(x)`, arrays of the shape and dtype of `x`, which XLA on CPU would make again wherever they are read.

    It fuses sine and cosine into all their readers, every layer's queries and keys: 6 % of the time of both cores in a
    LoRA step on SmolLM2-135M. A branch is the one fence that its fusion respects. Elsewhere this is a call.
    """
    if platform() != "cpu":
        return make(x)
    true = jax.lax.optimization_barrier(jnp.bool_(True))  # a branch on what XLA knows would be none
    return jax.lax.cond(true, make, lambda x: jax.tree.map(lambda _: x, jax.eval_shape(make, x)), x)
