"""BEATs' front end: squares of a Kaldi filter bank as tokens (Chen et al. 2022, BEATs, section 3.1).

The squares follow each other in time; of one stretch of time the lowest band comes first. Filter bank frames or
squares that are not whole at a row's end are left away.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.kaldi import kaldi_fbank
from slm_jax.audio.rates import frame_count, mask_of
from slm_jax.nn.linear import Linear

RATE_HZ = 16_000
MELS = 128
WINDOW, HOP = RATE_HZ // 40, RATE_HZ // 100
FULL_SCALE = 32_768.0
FBANK_MEAN, FBANK_STD = 15.41663, 6.55582
"""Of the filter bank over AudioSet; what is divided by is twice the deviation."""


class SpectrogramPatches(nn.Module):
    """Samples at 16 kHz to one vector per square of `patch` frames (10 ms each) by `patch` of the 128 bands.

    The convolution whose stride is its kernel is one dense map. `reference_padding`: see `reference_patch_mask`.
    """

    width: int
    patch: int
    reference_padding: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> tuple[Float[Array, "B T C"], Bool[Array, "B T"]]:
        fbank = standardised_fbank(jnp.where(mask, samples, 0.0))
        squares = self._squares(fbank)
        embed = Linear(
            self.width,
            in_names=("kernel",),
            out_names=("conv_out",),
            use_bias=False,
            dtype=self.dtype,
            name="patch_embedding",
        )
        if self.reference_padding:
            return embed(squares), reference_patch_mask(mask, fbank.shape[1], squares.shape[1])
        return embed(squares), mask_of(patch_count(mask.sum(1), self.patch), squares.shape[1])

    def _squares(self, fbank: Float[Array, "B F M"]) -> Float[Array, "B T C"]:
        batch, patch, bands = fbank.shape[0], self.patch, MELS // self.patch
        stretches = fbank.shape[1] // patch
        grid = fbank[:, : stretches * patch].reshape(batch, stretches, patch, bands, patch)
        return grid.transpose(0, 1, 3, 2, 4).reshape(batch, stretches * bands, patch * patch)


def standardised_fbank(samples: Float[Array, "B N"]) -> Float[Array, "B F M"]:
    """128 ln mel energies every 10 ms from samples in [-1, 1], about zero mean and a deviation of one half."""
    fbank = kaldi_fbank(samples, RATE_HZ, MELS, scale=FULL_SCALE)
    return (fbank - FBANK_MEAN) / (2 * FBANK_STD)


def patch_count(n: Any, patch: int) -> Any:
    """Squares that are whole within `n` samples (integer or integer array)."""
    return frame_count(n, WINDOW, HOP) // patch * (MELS // patch)


def reference_patch_mask(mask: Bool[Array, "B N"], frames: int, patches: int) -> Bool[Array, "B T"]:
    """The reference's own rule, under which the tokens of a padded row depend on the batch.

    Samples are shared out evenly among the frames, and these among the tokens as if those followed each other in
    time; what is real in part is real. Of the stretch in which a row ends, low bands count as real and high ones not.
    """
    return _any_of_each(_any_of_each(mask, frames), patches)


def _any_of_each(mask: Bool[Array, "B N"], groups: int) -> Bool[Array, "B G"]:
    """Does any of its entries hold, for each of `groups` equal neighbourhoods; what is left at the end is ignored."""
    size = mask.shape[1] // groups
    return mask[:, : size * groups].reshape(mask.shape[0], groups, size).any(axis=-1)
