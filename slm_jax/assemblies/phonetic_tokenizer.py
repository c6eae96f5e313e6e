"""Speech to phonetic tokens: features, normalisation, nearest centroid (Lakhotia et al. 2021; Hsu et al. 2021)."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.speech_aware_lm import window_of
from slm_jax.audio.kaldi import at_50_hz, mfcc_frames
from slm_jax.audio.rates import SSL_CONVS, conv_frames, receptive_field
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.core.token_spec import TokenSpec, single
from slm_jax.core.types import Codes, Frames
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.w2v_bert import W2VBERTConfig
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.quantizers.nearest import nearest
from slm_jax.quantizers.postprocess import Postprocess, PostprocessConfig

SETTINGS, ARRAYS = "tokenizer.json", "tokenizer.npz"
RATE_HZ = 16_000
"""What all features here are made from."""
LENGTH_BUCKET = 16_000
CHUNK = 1_600_000
"""Samples (100 s) that `encode_all` reads at once; fairseq's GSLM cuts at the same places."""


class MFCCFeaturesConfig(Config):
    """MFCC at 50 Hz on HuBERT's frame grid; `coefficients` 39 with deltas, 13 without."""

    coefficients: int = 39

    def __post_init__(self) -> None:
        require(self.coefficients in (13, 39), "coefficients", self.coefficients, "13, or 39 with deltas")

    def extract(self, params: Any, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Frames:
        """Features of right-padded rows; `params` is None."""
        frames = mfcc_frames(samples, mask)
        values = at_50_hz(frames.values)[..., : self.coefficients]
        return Frames(values, frames.mask[:, ::2])

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` samples."""
        return conv_frames(n, SSL_CONVS)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return receptive_field(SSL_CONVS)[1]


class EncoderFeaturesConfig(Config):
    """The output of layer `layer` of a speech encoder (GSLM: layer 6 of HuBERT base); Whisper's is to be trimmed."""

    encoder: SSLEncoderConfig | W2VBERTConfig | WhisperEncoderConfig
    layer: int

    def __post_init__(self) -> None:
        require(0 <= self.layer <= self.encoder.layers, "layer", self.layer, f"0 to {self.encoder.layers}")
        if isinstance(self.encoder, WhisperEncoderConfig):
            require(self.encoder.trim, "encoder.trim", False, "frames of the clip alone become units: True")

    def extract(self, params: Any, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Frames:
        """Features of right-padded rows."""
        return self.encoder.make().apply({"params": params}, samples, mask, layer=self.layer).frames

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` samples."""
        return self.encoder.frame_count(n)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.encoder.hop


@dataclasses.dataclass(frozen=True)
class PhoneticTokenizer:
    """One unit per frame: the centroid nearest to the normalised features; `params` are those of the encoder."""

    features: MFCCFeaturesConfig | EncoderFeaturesConfig
    params: Any
    postprocess: Postprocess
    centroids: Float[Array, "K D"]

    @property
    def units(self) -> int:
        """Number of different units."""
        return self.centroids.shape[0]

    @property
    def spec(self) -> TokenSpec:
        """One stream of units, with the columns that a stage writes them to."""
        return unit_spec(self.units, self.features.hop)

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` samples."""
        return self.features.frame_count(n)

    def encode(self, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Codes:
        """Units `[B, T, 1]` of right-padded rows at 16 kHz, 0 where masked; a padded row gives what it gives alone."""
        return self._encode(self.params, self.postprocess, self.centroids, samples, mask)

    def assign(self, frames: Frames) -> Int[Array, "B T"]:
        """Units of frames that `features.extract` made, 0 where masked."""
        return assigned(self.postprocess, self.centroids, frames)

    def encode_all(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
        """Units of each waveform; raises `UserError` for one that is shorter than a frame.

        Longer ones than 100 s (30 s for Whisper) are read in chunks without overlap, and a last chunk too short for a
        frame is left out. Of 100 s there are 4,999 frames, not 5,000, so units run ahead of the time by 20 ms per
        chunk, as they do in GSLM's own code; Whisper's do not.
        """
        return [self._encode_one(np.asarray(samples, np.float32)) for samples in waveforms]

    def content_hash(self) -> str:
        """16 hex digits that change with any setting, statistic or centroid (not with the encoder's parameters)."""
        return _hash(self._settings(), self._arrays())

    def save(self, folder: AnyPath) -> None:
        """Write everything but the encoder's parameters, which belong to the stage that trained them."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = io.BytesIO()
        np.savez(arrays, **self._arrays())
        (folder / ARRAYS).write_bytes(arrays.getvalue())
        text = json.dumps({**self._settings(), "hash": self.content_hash()}, indent=1)
        (folder / SETTINGS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: AnyPath, params: Any = None) -> "PhoneticTokenizer":
        """The inverse of `save`; `params` are the encoder's (None for MFCC).

        Raises `UserError` when a file is missing or does not match the hash that was saved with it.
        """
        for name in (SETTINGS, ARRAYS):
            require((folder / name).is_file(), "tokenizer", str(folder), f"has no {name}")
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        written = settings.pop("hash", None)
        with np.load(io.BytesIO((folder / ARRAYS).read_bytes())) as stored:
            arrays = dict(stored)
        found = _hash(settings, arrays)
        require(found == written, "tokenizer hash", found, f"{folder / SETTINGS} says {written!r}")
        features, config = from_json(settings["features"]), from_json(settings["postprocess"])
        require(isinstance(config, PostprocessConfig), "postprocess", settings["postprocess"], "no PostprocessConfig")
        known = MFCCFeaturesConfig | EncoderFeaturesConfig
        require(isinstance(features, known), "features", settings["features"], "neither MFCC nor a layer of an encoder")
        post = Postprocess(jnp.asarray(arrays["shift"]), jnp.asarray(arrays["scale"]), config)
        return cls(features, params, post, jnp.asarray(arrays["centroids"]))

    def _settings(self) -> dict[str, Any]:
        return {"features": self.features.to_json(), "postprocess": self.postprocess.config.to_json()}

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"shift": self.postprocess.shift, "scale": self.postprocess.scale, "centroids": self.centroids}
        return {name: np.asarray(value) for name, value in arrays.items()}

    def _encode_one(self, samples: np.ndarray) -> np.ndarray:
        size = min(CHUNK, window_of(self.features) or CHUNK)
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        chunks = [chunk for chunk in chunks if self.features.frame_count(len(chunk)) > 0]
        require(bool(chunks), "samples", len(samples), "shorter than one frame of the tokenizer")
        return np.concatenate([self._encode_chunk(chunk) for chunk in chunks])

    def _encode_chunk(self, samples: np.ndarray) -> np.ndarray:
        frames = int(self.features.frame_count(len(samples)))
        padded = np.pad(samples, (0, -len(samples) % LENGTH_BUCKET))
        mask = np.arange(len(padded)) < len(samples)
        return np.asarray(self.encode(jnp.asarray(padded[None]), jnp.asarray(mask[None])).ids)[0, :frames, 0]

    @cached_property
    def _encode(self) -> Any:
        def encode(params: Any, post: Postprocess, centroids: Any, samples: Any, mask: Any) -> Codes:
            frames = self.features.extract(params, samples, mask)
            return Codes(assigned(post, centroids, frames)[..., None], frames.mask)

        return jax.jit(encode)


def unit_spec(units: int, hop: int) -> TokenSpec:
    """A unit every `hop` samples: column `units`, and without repetitions `runs` with their `durations`."""
    return single("units", units, hop, RATE_HZ, columns=("units",), runs=("runs",), durations="durations")


@jax.jit
def assigned(post: Postprocess, centroids: Float[Array, "K D"], frames: Frames) -> Int[Array, "B T"]:
    """The centroid nearest to every treated frame, 0 where masked."""
    treated = post(frames)
    return jnp.where(treated.mask, nearest(treated.values, centroids)[0], 0)


def _hash(settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
