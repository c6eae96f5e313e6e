"""The front end of SeamlessM4T and w2v-BERT 2.0: a standardised Kaldi filter bank, several frames to one.

Source: `SeamlessM4TFeatureExtractor` of transformers. Frames that are not whole at a row's end are left away.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.audio.kaldi import kaldi_fbank
from slm_jax.audio.rates import frame_count, mask_of
from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded

RATE_HZ = 16_000
WINDOW, HOP = RATE_HZ // 40, RATE_HZ // 100
FULL_SCALE = 32_768.0
FLOOR = 1e-7
"""Added to a band's variance."""


def stacked_fbank(samples: Float[Array, "B N"], mask: Bool[Array, "B N"], mels: int, stacked: int) -> Frames:
    """`stacked` frames of 10 ms with `mels` ln energies each beside one another, from right-padded rows in [-1, 1].

    Each band of each row has mean 0 and variance 1 over the row's real frames of 10 ms, those of a frame that is not
    whole among them.
    """
    fbank = kaldi_fbank(jnp.where(mask, samples, 0.0), RATE_HZ, mels, scale=FULL_SCALE)
    lengths = frame_count(mask.sum(1), WINDOW, HOP)
    fbank = standardised(fbank, mask_of(lengths, fbank.shape[1]))
    count = fbank.shape[1] // stacked
    values = fbank[:, : count * stacked].reshape(fbank.shape[0], count, stacked * mels)
    return Frames(values, mask_of(lengths // stacked, count))


def standardised(values: Float[Array, "B T D"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """Each channel of each row with mean 0 and (sample) variance 1 over the real frames; 0 where masked."""
    count = mask.sum(1)[:, None, None]
    centred = zero_padded(values - zero_padded(values, mask).sum(1, keepdims=True) / jnp.maximum(count, 1), mask)
    variance = jnp.square(centred).sum(1, keepdims=True) / jnp.maximum(count - 1, 1)
    return centred / jnp.sqrt(variance + FLOOR)


def stacked_frame_count(n: Any, stacked: int) -> Any:
    """Frames that are whole within `n` samples (integer or integer array)."""
    return frame_count(n, WINDOW, HOP) // stacked
