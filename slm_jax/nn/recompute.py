"""Parts of a layer that are made again for the gradient instead of being kept for it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax


def recomputed(method: Callable[..., jax.Array], module: nn.Module, *inputs: Any) -> jax.Array:
    """`method(module, *inputs)`; of all that it makes only `inputs` are kept. Integers among these are static."""
    static = tuple(1 + place for place, value in enumerate(inputs) if isinstance(value, int))
    return nn.remat(method, static_argnums=static)(module, *inputs)
