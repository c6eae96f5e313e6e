"""Speech to phonetic units: one layer of a self-supervised encoder, a treatment, k-means (GSLM, TWIST, AudioLM)."""

import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.trees import flatten_by_path
from slm_jax.core.types import Codes, Frames, Waveform
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.nearest import nearest
from slm_jax.quantizers.postprocess import (
    PostprocessConfig,
    Statistics,
    fit_statistics,
    identity_statistics,
    postprocess,
)

CONFIG_FILE, ARRAYS_FILE = "tokenizer.json", "tokenizer.npz"
RATE_HZ = 16_000


class PhoneticTokenizerConfig(Config):
    """`layer`: which hidden state becomes units (6 in GSLM, 0 is what the first layer reads); `units`: how many.

    `chunk_samples`: longer recordings are read in chunks of so many samples without overlap, as fairseq does with
    1,600,000 (100 s). Every chunk gives `frame_count(chunk)` frames, so a whole one ends 80 samples short of the next
    (one frame fewer than its length in hops) and units of long recordings run ahead by 20 ms per 100 s.
    """

    encoder: SSLEncoderConfig = SSLEncoderConfig()
    layer: int = 6
    units: int = 100
    postprocess: PostprocessConfig = PostprocessConfig()
    chunk_samples: int = 1_600_000

    def __post_init__(self) -> None:
        layers = self.encoder.layers
        require(0 <= self.layer <= layers, "layer", self.layer, f"must be in 0..{layers}, the encoder's layers")
        require(self.units >= 1, "units", self.units, "must be at least 1")
        long_enough = self.encoder.frame_count(self.chunk_samples) > 0
        require(long_enough, "chunk_samples", self.chunk_samples, "must hold at least one frame")

    def make(self, params: Any, centroids: Any, statistics: Statistics | None = None) -> "PhoneticTokenizer":
        """The tokenizer with these weights."""
        return PhoneticTokenizer(self, params, centroids, statistics)


class PhoneticTokenizer:
    """Waveforms to units, `Codes [B, T, 1]`.

    `params` is the encoder's parameter tree (`params["encoder"]` after HuBERT pre-training). `encode` compiles once
    per shape: hand it few shapes.
    """

    def __init__(
        self, config: PhoneticTokenizerConfig, params: Any, centroids: Any, statistics: Statistics | None = None
    ) -> None:
        shape = tuple(np.shape(centroids))
        expected = (config.units, config.encoder.width)
        require(shape == expected, "centroids", shape, f"must be {expected}: units x width of the encoder")
        needs = config.postprocess.normalise == "standardise"
        require(not needs or statistics is not None, "statistics", statistics, "are needed to standardise")
        self.config = config
        self.params = params
        self.centroids = jnp.asarray(centroids, jnp.float32)
        self.statistics = statistics or identity_statistics(config.encoder.width)

    def features(self, waveform: Waveform) -> Frames:
        """Treated frames `[B, T, D]`: what k-means sees."""
        _check_rate(waveform)
        return _features(self.config, self.params, self.statistics, waveform)

    def encode(self, waveform: Waveform) -> Codes:
        """Units of right-padded rows; ids of masked frames are 0."""
        _check_rate(waveform)
        return _encode(self.config, self.params, self.centroids, self.statistics, waveform)

    def encode_long(self, samples: Float[np.ndarray, "N"]) -> Codes:
        """Units `[1, T, 1]` of one recording of any length, by the chunk rule of the config.

        A last chunk too short for a frame is left out. Raises `UserError` when the recording is too short for one.
        """
        size, count = self.config.chunk_samples, self.config.encoder.frame_count
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        chunks = [chunk for chunk in chunks if count(len(chunk)) > 0]
        require(bool(chunks), "samples", samples.shape, "shorter than one frame")
        parts = [self.encode(_one_row(chunk)) for chunk in chunks]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)

    def content_hash(self) -> str:
        """16 hex digits that change with any setting or weight."""
        return _hash(self.config.to_json(), self._arrays())

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` (config and hash) and `tokenizer.npz` (all weights) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / ARRAYS_FILE, **self._arrays())
        description = {"config": self.config.to_json(), "hash": self.content_hash()}
        (folder / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "PhoneticTokenizer":
        """What `save` wrote; raises `UserError` when a file is missing or the hash does not match."""
        folder = Path(folder)
        for name in (CONFIG_FILE, ARRAYS_FILE):
            require((folder / name).is_file(), "tokenizer", str(folder), f"holds no {name}")
        description = json.loads((folder / CONFIG_FILE).read_text())
        with np.load(folder / ARRAYS_FILE) as stored:
            arrays = dict(stored)
        found = _hash(description["config"], arrays)
        if found != description["hash"]:
            raise UserError(f"tokenizer in {str(folder)!r}: hash is {found}, {CONFIG_FILE} says {description['hash']}")
        statistics = Statistics(arrays["mean"], arrays["std"])
        return cls(from_json(description["config"]), _tree(arrays), arrays["centroids"], statistics)

    def _arrays(self) -> dict[str, np.ndarray]:
        weights = {f"params/{path}": np.asarray(leaf) for path, leaf in flatten_by_path(self.params).items()}
        mean, std = (np.asarray(part) for part in self.statistics)
        return {**weights, "centroids": np.asarray(self.centroids), "mean": mean, "std": std}


def fit_phonetic_tokenizer(
    config: PhoneticTokenizerConfig, params: Any, waveforms: Iterable[Waveform], kmeans: KMeansConfig | None = None
) -> PhoneticTokenizer:
    """A tokenizer whose statistics and centroids come from the real frames of `waveforms` (batches, few shapes).

    All frames are held in memory: 30 hours of 192 wide frames are 4 GB. `kmeans.clusters` follows `config.units`.
    """
    kmeans = (kmeans or KMeansConfig()).replace(clusters=config.units)
    statistics = identity_statistics(config.encoder.width)
    hidden = [_hidden(config, params, waveform) for waveform in waveforms]
    if config.postprocess.normalise == "standardise":
        statistics = fit_statistics(_real_rows(hidden))
    treated = [postprocess(config.postprocess, frames, statistics) for frames in hidden]
    return PhoneticTokenizer(config, params, fit_kmeans(kmeans, _real_rows(treated)).centroids, statistics)


@partial(jax.jit, static_argnums=0)
def _hidden(config: PhoneticTokenizerConfig, params: Any, waveform: Waveform) -> Frames:
    encoder = config.encoder.make()
    return encoder.apply({"params": params}, waveform.samples, waveform.mask, layer=config.layer).frames


@partial(jax.jit, static_argnums=0)
def _features(config: PhoneticTokenizerConfig, params: Any, statistics: Statistics, waveform: Waveform) -> Frames:
    return postprocess(config.postprocess, _hidden(config, params, waveform), statistics)


@partial(jax.jit, static_argnums=0)
def _encode(
    config: PhoneticTokenizerConfig,
    params: Any,
    centroids: Float[Array, "K D"],
    statistics: Statistics,
    waveform: Waveform,
) -> Codes:
    frames = _features(config, params, statistics, waveform)
    ids, _ = nearest(frames.values, centroids)
    return Codes(jnp.where(frames.mask, ids, 0)[..., None], frames.mask)


def _check_rate(waveform: Waveform) -> None:
    require(waveform.rate_hz == RATE_HZ, "rate_hz", waveform.rate_hz, f"the encoders read {RATE_HZ} Hz")


def _one_row(samples: Float[np.ndarray, "N"]) -> Waveform:
    return Waveform(jnp.asarray(samples, jnp.float32)[None], jnp.ones((1, len(samples)), bool))


def _real_rows(batches: list[Frames]) -> Float[np.ndarray, "T D"]:
    return np.concatenate([np.asarray(frames.values, np.float32)[np.asarray(frames.mask)] for frames in batches])


def _hash(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _tree(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The nested parameter tree from paths such as `params/front_end/conv_0/kernel`."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        if path.startswith("params/"):
            *parents, leaf = path.split("/")[1:]
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = jnp.asarray(array)
    return tree
