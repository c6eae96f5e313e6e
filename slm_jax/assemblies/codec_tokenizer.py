"""A codec with its weights as one object: recordings to codes and back."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from slm_jax.assemblies.codec import CodecConfig, settled
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.core.config import content_hash
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec
from slm_jax.core.types import Codes

BUCKET_S = 4
"""Recordings are filled up with silence to multiples of so many seconds: few lengths, few programs."""


class CodecTokenizer:
    """A tokenizer (`core.contracts.Tokenizer`) that also speaks. `books`: how many are used, None for all."""

    def __init__(self, config: CodecConfig, variables: Any, books: int | None = None) -> None:
        self.config, params = settled(config, variables)
        self.columns = config.quantizer.columns(books)
        self.variables, self.books = {"params": jax.tree.map(jnp.asarray, params)}, books
        codec = self.config.make()
        self._encode = jax.jit(lambda v, samples, mask: codec.apply(v, samples, mask, books, method="encode"))
        self._decode = jax.jit(partial(codec.apply, method="decode"))

    @property
    def spec(self) -> TokenSpec:
        """What its codes are."""
        return self.config.spec(self.books)

    @property
    def bits_per_second(self) -> float:
        """Bitrate of its codes."""
        return self.config.bits_per_second(self.books)

    def hash(self) -> str:
        """Of config and weights: codes mean nothing to another codec."""
        return content_hash([self.config.content_hash(), part_hash(self.variables["params"])])

    def frame_count(self, n: Any) -> Any:
        """Frames of so many samples."""
        return self.config.frame_count(n)

    def encode(self, samples: Float[np.ndarray, "N"]) -> Int[np.ndarray, "T K"]:
        """Codes of samples at the codec's rate. Raises `UserError` for none, or where they are not finite."""
        return self.encode_rows([samples])[0]

    def encode_rows(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_ K"]]:
        """The same of several, encoded together."""
        for samples in waveforms:
            require(len(samples) > 0, "samples", len(samples), "there is nothing to encode")
            require(bool(np.isfinite(samples).all()), "samples", "NaN or Inf", "must be finite")
        unit = self.config.unit * -(-BUCKET_S * self.config.rate_hz // self.config.unit)
        length = unit * -(-max(map(len, waveforms)) // unit)
        rows = np.stack([np.pad(np.asarray(samples, np.float32), (0, length - len(samples))) for samples in waveforms])
        mask = np.arange(length) < np.array([len(samples) for samples in waveforms])[:, None]
        codes = self._encode(self.variables, jnp.asarray(rows), jnp.asarray(mask))
        counts = np.asarray(codes.mask.sum(-1))
        return [row[:count] for row, count in zip(np.asarray(codes.ids), counts, strict=True)]

    def encode_all(self, waveforms: Sequence[np.ndarray]) -> list[dict[str, Int[np.ndarray, "_"]]]:
        """Codes of each by column, as language models read them."""
        names = self.spec.columns
        return [dict(zip(names, self.encode(samples).T, strict=True)) for samples in waveforms]

    def decode(self, ids: Int[np.ndarray, "T K"], samples: int | None = None) -> Float[np.ndarray, "N"]:
        """The sound of codes; of `samples` samples where that is known. Raises `UserError` for codes there are not."""
        ids = np.asarray(ids)
        fits = ids.ndim == 2 and 1 <= ids.shape[1] <= self.config.quantizer.columns() and len(ids) > 0
        require(fits, "codes", ids.shape, f"must be [T, K], T above 0 and K up to {self.config.quantizer.columns()}")
        sizes = np.array(self.config.quantizer.sizes[: ids.shape[1]])
        wrong = ids[(ids < 0) | (ids >= sizes)]
        require(not len(wrong), "codes", wrong[:1].tolist(), f"must be in [0, {sizes[0]})")
        frames = -(-BUCKET_S * self.config.rate_hz // self.config.hop)
        length = frames * -(-len(ids) // frames)
        padded = jnp.asarray(np.pad(ids, ((0, length - len(ids)), (0, 0))), jnp.int32)[None]
        codes = Codes(padded, jnp.asarray(np.arange(length) < len(ids))[None])
        made = np.asarray(self._decode(self.variables, codes))[0, : len(ids) * self.config.hop]
        return made if samples is None else made[:samples]
