"""Style as tokens: which class a classifier hears in every window of speech, or which cluster its features are in.

Source: SpiRit-LM (Nguyen et al. 2024), section 3.1: clusters of a speech classifier's features, one a second; what was
released has learnt them as 100 classes.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec, single
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.quantizers.nearest import nearest

LENGTH_BUCKET = 4 * RATE_HZ
"""Recordings are filled up to multiples of so many samples: few lengths, few programs."""


def style_spec(config: SSLClassifierConfig, clusters: int | None) -> TokenSpec:
    """One stream, an id for each window; `clusters` None: of classes."""
    return single("style", clusters or config.classes, config.hop, RATE_HZ, columns=("style",))


class StyleTokenizer:
    """A tokenizer (`core.contracts.Tokenizer`) of windows. `centroids`: of their means; None: the class is the id."""

    def __init__(self, config: SSLClassifierConfig, params: Any, centroids: Float[Any, "K P"] | None = None) -> None:
        self.config, self.params = config, jax.tree.map(jnp.asarray, params)
        self.centroids = None if centroids is None else jnp.asarray(centroids, jnp.float32)

    @property
    def spec(self) -> TokenSpec:
        """What its ids are."""
        return style_spec(self.config, None if self.centroids is None else len(self.centroids))

    def frame_count(self, n: Any) -> Any:
        """Windows of so many samples."""
        return self.config.frame_count(n)

    def encode(
        self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]
    ) -> tuple[Int[Array, "B W"], Float[Array, "B W P"], Bool[Array, "B W"]]:
        """Ids and means of the windows of right-padded rows, and which of them are real."""
        return _encode(self.config)(self.params, self.centroids, samples, mask)

    def encode_all(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
        """Ids of each; raises `UserError` for one that is shorter than a frame of the encoder."""
        return [self._encode_one(np.asarray(samples, np.float32)) for samples in waveforms]

    def _encode_one(self, samples: Float[np.ndarray, "N"]) -> Int[np.ndarray, "W"]:
        frames = int(self.config.encoder.frame_count(len(samples)))
        require(frames > 0, "samples", len(samples), "shorter than one frame")
        padded = np.pad(samples, (0, -len(samples) % LENGTH_BUCKET))
        mask = np.arange(len(padded)) < len(samples)
        ids, _, _ = self.encode(jnp.asarray(padded)[None], jnp.asarray(mask)[None])
        return np.asarray(ids)[0, : int(self.frame_count(len(samples)))]


@lru_cache(maxsize=8)
def _encode(config: SSLClassifierConfig) -> Any:
    """Compiled once for every shape, however many tokenizers there are."""
    return jax.jit(partial(_encoded, config.make()))


def _encoded(model: Any, params: Any, centroids: Any, samples: jax.Array, mask: jax.Array) -> Any:
    found = model.apply({"params": params}, samples, mask)
    ids = found.logits.argmax(-1) if centroids is None else nearest(found.pooled, centroids)[0]
    return jnp.where(found.mask, ids, 0).astype(jnp.int32), found.pooled, found.mask
