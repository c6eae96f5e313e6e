"""Blocks of different kinds as one layer of a stack."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from slm_jax.parallel.placement import activations


class Group(nn.Module):
    """One block of each kind in `pattern`, one after the other, called as `Stack` calls a block.

    Sub-modules and parameter paths: `block_0`, `block_1` ... `caches` holds one entry per block, of any kind, or
    None. With `remat` each block is made again for the gradient, so that only what goes into it is kept.
    """

    pattern: tuple[Callable[..., nn.Module], ...]
    remat: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], caches: tuple, *shared: Any, keep: bool, **static: Any
    ) -> tuple[Float[Array, "B T D"], tuple[tuple, Float[Array, "P B T D"] | None]]:
        """The last block's output, then the new caches and, with `keep`, every block's output."""

        def body(block: nn.Module, x: jax.Array, cache: Any, shared: tuple) -> tuple:
            return block(activations(x), cache, *shared, **static)

        run = nn.remat(body) if self.remat else body
        new_caches, hidden = [], []
        for place, (make, cache) in enumerate(zip(self.pattern, caches, strict=True)):
            x, cache = run(make(name=f"block_{place}"), x, cache, shared)
            new_caches.append(cache)
            hidden.append(x)
        return x, (tuple(new_caches), jnp.stack(hidden) if keep else None)
