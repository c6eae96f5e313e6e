"""Masks for the splash kernel that JAX does not bring."""

from typing import Any

import numpy as np


def block_mask(shape: tuple[int, int], block: int, window: int | None) -> Any:
    """Entries see their own block of `block` entries and earlier ones, of these the last `window` blocks only.

    A `splash_attention.Mask`. It is asked for the kernel's tiles, never for the whole: tiles that are all seen or not
    seen at all are not written down, and equal ones once.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import Mask

    wanted = (shape, block, window)

    class BlockMask(Mask):
        """Rows are queries, columns keys; equal settings make equal masks, which heads then share."""

        settings = wanted

        @property
        def shape(self) -> tuple[int, ...]:
            return shape

        def __getitem__(self, tile: tuple[slice, slice]) -> np.ndarray:
            query, key = (np.arange(size)[part] // block for size, part in zip(shape, tile, strict=True))
            seen = key[None, :] <= query[:, None]
            return seen if window is None else seen & (key[None, :] > query[:, None] - window)

        def __eq__(self, other: object) -> bool:
            return getattr(other, "settings", None) == self.settings

        def __hash__(self) -> int:
            return hash(self.settings)

    return BlockMask()
