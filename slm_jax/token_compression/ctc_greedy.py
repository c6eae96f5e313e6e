"""Greedy decoding of CTC: repetitions are collapsed, then blanks removed (Graves et al. 2006, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

Ids = Int[Array | np.ndarray, "B T"]
Mask = Bool[Array | np.ndarray, "B T"]


def collapsed(labels: Ids, mask: Mask, blank: int = 0) -> tuple[Ids, Mask]:
    """What the best label of every frame of right-padded rows says: ids, 0 where padded, and their mask.

    Both keep the length T, which a row without blanks and repetitions needs. NumPy arrays give NumPy arrays; otherwise
    it is traceable.
    """
    xp: Any = jnp if isinstance(labels, jax.Array) else np
    starts = xp.concatenate([xp.ones_like(mask[:, :1]), labels[:, 1:] != labels[:, :-1]], axis=1)
    kept = mask & starts & (labels != blank)
    order = xp.argsort(~kept, axis=1, stable=True)
    left = xp.arange(labels.shape[1]) < kept.sum(1)[:, None]
    return xp.where(left, xp.take_along_axis(labels, order, axis=1), 0), left
