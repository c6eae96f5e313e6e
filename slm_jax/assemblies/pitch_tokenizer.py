"""Pitch codes as tokens: speech to its F0, F0 to codes, and codes to F0 again."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from slm_jax.assemblies.pitch_codec import PitchCodecConfig, settled_pitch, voicing_of
from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.errors import require
from slm_jax.core.token_spec import TokenSpec, single
from slm_jax.core.types import Codes, Frames

BUCKET = 64
"""Rows are filled up to multiples of so many codes: few lengths, few programs."""


def pitch_spec(config: PitchCodecConfig, pitch: PitchConfig) -> TokenSpec:
    """A code every `hop` values of F0."""
    hop = config.hop * round(pitch.hop_s * pitch.rate_hz)
    columns: dict[str, Any] = {"columns": ("pitch",), "runs": ("runs",), "durations": "durations"}
    return single("pitch", config.codes, hop, pitch.rate_hz, **columns)


class PitchTokenizer:
    """A tokenizer (`core.contracts.Tokenizer`) whose codes say how F0 moves around its mean in the utterance."""

    def __init__(self, pitch: PitchConfig, config: PitchCodecConfig, variables: Any) -> None:
        self.config, params = settled_pitch(config, variables)
        self.pitch, self.variables = pitch, {"params": jax.tree.map(jnp.asarray, params)}
        codec, self._tracker = self.config.make(), pitch.make()
        self._encode = jax.jit(partial(codec.apply, method="encode"))
        self._decode = jax.jit(partial(codec.apply, method="decode"))

    @property
    def spec(self) -> TokenSpec:
        """What its codes are."""
        return pitch_spec(self.config, self.pitch)

    def frame_count(self, n: Any) -> Any:
        """Codes of so many samples; what does not fill one has none."""
        return n // self.spec.hop

    def encode_all(self, waveforms: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
        """Codes of each; raises `UserError` for one that is shorter than a code."""
        return self.encode_tracks([self.f0_hz(samples) for samples in waveforms])

    def f0_hz(self, samples: Float[np.ndarray, "N"]) -> Float[np.ndarray, "P"]:
        """F0 (Hz, 0 where unvoiced) as its tracker hears it."""
        padded = np.pad(np.asarray(samples, np.float32), (0, -len(samples) % self.pitch.rate_hz))  # few shapes
        real = np.arange(len(padded)) < len(samples)
        count = len(samples) // round(self.pitch.hop_s * self.pitch.rate_hz)
        return np.asarray(self._tracker(padded[None], real[None])[0])[0, :count]

    def encode_tracks(self, tracks: Sequence[Float[np.ndarray, "_"]]) -> list[Int[np.ndarray, "_"]]:
        """The same of F0 (Hz, 0 where unvoiced) on the tracker's grid, all rows together."""
        shortest = min(map(len, tracks))
        require(shortest >= self.config.hop, "values of F0", shortest, f"a code stands for {self.config.hop}")
        bucket = BUCKET * self.config.hop
        length = bucket * -(-max(map(len, tracks)) // bucket)
        rows = [np.pad(self.config.features.read(track), ((0, length - len(track)), (0, 0))) for track in tracks]
        mask = np.arange(length) < np.array([len(track) for track in tracks])[:, None]
        ids = np.asarray(self._encode(self.variables, Frames(jnp.asarray(np.stack(rows)), jnp.asarray(mask))).ids)
        return [row[: len(track) // self.config.hop, 0] for row, track in zip(ids, tracks, strict=True)]

    def decode(self, ids: Int[np.ndarray, "T"], mean: float) -> Float[np.ndarray, "P"]:
        """F0 (Hz, 0 where unvoiced) that codes stand for around `mean` (`config.features.mean` of a track).

        Raises `UserError` for codes that there are not.
        """
        wrong = ids[(ids < 0) | (ids >= self.config.codes)]
        require(not len(wrong), "codes", wrong[:1].tolist(), f"must be in [0, {self.config.codes})")
        length = BUCKET * -(-len(ids) // BUCKET)
        padded = jnp.asarray(np.pad(np.asarray(ids, np.int32), (0, length - len(ids))))[None, :, None]
        codes = Codes(padded, jnp.asarray(np.arange(length) < len(ids))[None])
        made = np.asarray(self._decode(self.variables, codes).values)[0, : len(ids) * self.config.hop]
        return np.where(voicing_of(self.config, made), self.config.features.f0_hz(made[:, 0], mean), 0.0)
