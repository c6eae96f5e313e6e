"""From discrete units to a waveform: HiFi-GAN on units, or the same inputs on the fast generator.

Source: Polyak et al. 2021 (units, F0 and speaker in, HiFi-GAN out); the duration predictor as in Lee et al. 2022 and
transformers' `SeamlessM4TCodeHifiGan`; tokens of pitch and style as in SpiRit-LM (Nguyen et al. 2024). The F0 predictor
lets units that a language model made be spoken without a recording's F0.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Waveform
from slm_jax.decoders.hifigan import HiFiGANConfig
from slm_jax.decoders.istft_vocoder import ISTFTVocoderConfig
from slm_jax.decoders.length import frames_from_log, regulate
from slm_jax.decoders.predictors import PredictorConfig, in_windows, pitch_predictor
from slm_jax.nn.dtypes import at_least_float32
from slm_jax.nn.linear import Embed

FLOOR_F0_HZ = 20.0
TABLES = {
    "pitch_token": "pitch_tokens",
    "style_token": "style_tokens",
    "speaker": "speakers",
    "style": "styles",
    "language": "languages",
}
"""Inputs that are looked up, in their order behind the unit and F0, and the fields that say how many of each there are.
Each has a width `NAME_dim`."""
STREAMS = ("pitch_token", "style_token")
"""Those of them that change from frame to frame; the others belong to the row."""


class UnitVocoderConfig(Config):
    """Inputs of the generator, in this order: unit, normalised log F0 and voicing (with `pitch`), token of pitch, token
    of style, speaker, style, language.

    `speakers` 0 leaves the speaker out, `languages` 0 the language, `styles` 0 a style of the whole row (SpiRit-LM's
    base vocoder). `pitch_tokens` and `style_tokens`: how many there are of streams beside the units, 0 for none; one of
    them lasts `pitch_every` or `style_every` frames of units where it comes at a rate of its own (`repeated`).

    F0 enters as `(ln f0_hz - log_f0_mean) / log_f0_std` where voiced and 0 elsewhere; `voicing` False leaves F0 alone
    to tell what is voiced, as fairseq's vocoders do. `durations` and `pitch_predictor` None leave the predictor out.
    """

    units: int = 100
    unit_dim: int = 128
    speakers: int = 0
    speaker_dim: int = 128
    languages: int = 0
    language_dim: int = 128
    styles: int = 0
    style_dim: int = 128
    pitch_tokens: int = 0
    pitch_token_dim: int = 128
    pitch_every: int = 2
    style_tokens: int = 0
    style_token_dim: int = 128
    style_every: int = 25
    pitch: bool = True
    voicing: bool = True
    log_f0_mean: float = 5.2
    log_f0_std: float = 0.35
    generator: HiFiGANConfig | ISTFTVocoderConfig = HiFiGANConfig()
    durations: PredictorConfig | None = PredictorConfig()
    pitch_predictor: PredictorConfig | None = pitch_predictor()
    rate_hz: int = 16_000

    def __post_init__(self) -> None:
        require(self.units > 0, "units", self.units, "must be positive")
        for kind in TABLES.values():
            require(getattr(self, kind) >= 0, kind, getattr(self, kind), "0 (none) or more")
        for name in ("pitch_every", "style_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "frames, at least 1")
        require(self.log_f0_std > 0, "log_f0_std", self.log_f0_std, "must be positive")
        outputs = 1 if self.durations is None else self.durations.outputs
        require(outputs == 1, "durations.outputs", outputs, "a duration is one number")
        outputs = 2 if self.pitch_predictor is None else self.pitch_predictor.outputs
        require(outputs == 2, "pitch_predictor.outputs", outputs, "two: log F0 and voicing")
        reads = self.pitch or not self.generator.reads_pitch
        require(reads, "pitch", self.pitch, "this generator needs F0")

    @property
    def hop(self) -> int:
        """Samples per unit frame."""
        return self.generator.hop

    @property
    def input_width(self) -> int:
        """Width of what the generator reads."""
        pitch = 1 + self.voicing if self.pitch else 0
        tables = (getattr(self, f"{name}_dim") for name, kind in TABLES.items() if getattr(self, kind))
        return self.unit_dim + pitch + sum(tables)

    def make(self) -> "UnitVocoder":
        """The module."""
        return UnitVocoder(self)


class UnitVocoder(nn.Module):
    """Units at frame rate to samples; `synthesise` starts from deduplicated units."""

    config: UnitVocoderConfig

    def setup(self) -> None:
        c = self.config
        self.unit = Embed(c.units, c.unit_dim, (None, "embed"), nn.initializers.normal(1.0))
        self.generator = c.generator.make()
        for name, kind in TABLES.items():
            if getattr(c, kind):
                width, axes = getattr(c, f"{name}_dim"), (None, "embed")
                setattr(self, name, Embed(getattr(c, kind), width, axes, nn.initializers.normal(1.0)))
        if c.durations is not None:
            self.durations = c.durations.make()
        if c.pitch_predictor is not None:
            self.pitch = c.pitch_predictor.make()

    def __call__(
        self,
        units: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None = None,
        *,
        f0_hz: Float[Array, "B T"] | None = None,
        voiced: Bool[Array, "B T"] | None = None,
        pitch_token: Int[Array, "B T"] | None = None,
        style_token: Int[Array, "B T"] | None = None,
        speaker: Int[Array, "B"] | None = None,
        style: Int[Array, "B"] | None = None,
        language: Int[Array, "B"] | None = None,
        key: jax.Array | None = None,
    ) -> Float[Array, "B N"]:
        """N = T hop samples. Raises `UserError` when an input that the config asks for is missing."""
        c = self.config
        parts = [self.unit(units)]
        if c.pitch:
            require(f0_hz is not None and voiced is not None, "f0_hz", None, "this vocoder reads F0 and voicing")
            told = [self.normalised(f0_hz, voiced)] + [voiced.astype(jnp.float32)] * c.voicing
            parts.append(jnp.stack(told, axis=-1))
        given = {"pitch_token": pitch_token, "style_token": style_token}
        given |= {"speaker": speaker, "style": style, "language": language}
        parts += [vector for name in TABLES for vector in self._vectors(name, given[name], units.shape[1])]
        features = jnp.concatenate(parts, axis=-1)
        if c.generator.reads_pitch:
            return self.generator(features, mask, f0_hz=f0_hz, voiced=voiced, key=key)
        return self.generator(features, mask)

    def normalised(self, f0_hz: Float[Array, "B T"], voiced: Bool[Array, "B T"]) -> Float[Array, "B T"]:
        """Log F0 as the generator reads it and the predictor gives it; 0 where unvoiced."""
        log_f0 = jnp.log(jnp.maximum(f0_hz.astype(at_least_float32(f0_hz.dtype)), FLOOR_F0_HZ))
        return jnp.where(voiced, (log_f0 - self.config.log_f0_mean) / self.config.log_f0_std, 0.0)

    def log_durations(
        self, units: Int[Array, "B S"], mask: Bool[Array, "B S"] | None = None, deterministic: bool = True
    ) -> Float[Array, "B S"]:
        """`ln(frames + 1)` of each deduplicated unit."""
        require(self.config.durations is not None, "durations", None, "this vocoder was made without the predictor")
        return self.durations(self.unit(units), mask, deterministic)[..., 0]

    def pitch_of(
        self,
        units: Int[Array, "B T"],
        mask: Bool[Array, "B T"] | None = None,
        speaker: Int[Array, "B"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Normalised log F0 and the logit of voicing for units at frame rate."""
        out = self.pitch(self._pitch_inputs(units, speaker), mask, deterministic)
        return out[..., 0], out[..., 1]

    def predicted_frames(self, units: Int[Array, "B S"], mask: Bool[Array, "B S"]) -> Int[Array, "B S"]:
        """How many frames each deduplicated unit lasts, 0 where masked; does not depend on the batch."""
        require(self.config.durations is not None, "durations", None, "this vocoder was made without the predictor")
        return frames_from_log(in_windows(self.durations, self.unit(units), mask)[..., 0], mask)

    def predicted_f0(
        self, units: Int[Array, "B T"], mask: Bool[Array, "B T"], speaker: Int[Array, "B"] | None = None
    ) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
        """F0 (Hz, 0 where unvoiced) and voicing that the units suggest; does not depend on the batch."""
        out = in_windows(self.pitch, self._pitch_inputs(units, speaker), mask)
        log_f0, logit = out[..., 0], out[..., 1]
        voiced = (logit > 0) & mask
        f0_hz = jnp.exp(jnp.clip(log_f0, -4.0, 4.0) * self.config.log_f0_std + self.config.log_f0_mean)
        return jnp.where(voiced, f0_hz, 0.0), voiced

    def synthesise(
        self,
        units: Int[Array, "B S"],
        mask: Bool[Array, "B S"],
        capacity: int,
        *,
        durations: Int[Array, "B S"] | None = None,
        f0_hz: Float[Array, "B T"] | None = None,
        voiced: Bool[Array, "B T"] | None = None,
        pitch_token: Int[Array, "B S"] | None = None,
        style_token: Int[Array, "B S"] | None = None,
        speaker: Int[Array, "B"] | None = None,
        style: Int[Array, "B"] | None = None,
        language: Int[Array, "B"] | None = None,
        key: jax.Array | None = None,
    ) -> Waveform:
        """Deduplicated units spoken in at most `capacity` frames (what goes beyond is cut off).

        Durations (frames), F0 and voicing (at frame rate, T = capacity) are predicted where they are not given. Tokens
        of pitch and style are one for each unit, and last as long.
        """
        if durations is None:
            durations = self.predicted_frames(units, mask)
        frames, real = regulate(units, durations, mask, capacity)
        if self.config.pitch and f0_hz is None:
            f0_hz, voiced = self.predicted_f0(frames, real, speaker)
        tokens = {"pitch_token": pitch_token, "style_token": style_token}
        drawn_out = {
            name: None if ids is None else regulate(ids, durations, mask, capacity)[0] for name, ids in tokens.items()
        }
        rows = {"speaker": speaker, "style": style, "language": language}
        samples = self(frames, real, f0_hz=f0_hz, voiced=voiced, key=key, **drawn_out, **rows)
        return Waveform(samples, jnp.repeat(real, self.config.hop, axis=1), self.config.rate_hz)

    def _pitch_inputs(self, units: Int[Array, "B T"], speaker: Int[Array, "B"] | None) -> Float[Array, "B T D"]:
        """What the predictor of F0 reads."""
        predictor = self.config.pitch_predictor
        require(predictor is not None, "pitch_predictor", None, "this vocoder was made without the predictor")
        return jnp.concatenate([self.unit(units), *self._vectors("speaker", speaker, units.shape[1])], axis=-1)

    def _vectors(self, name: str, ids: Int[Array, "B *T"] | None, frames: int) -> list[jax.Array]:
        """The vectors of one table at every frame, or nothing where the config has no such input."""
        known = getattr(self.config, TABLES[name])
        if not known:
            return []
        kind, each = TABLES[name].replace("_", " "), "frame" if name in STREAMS else "row"
        require(ids is not None, name, None, f"this vocoder knows {known} {kind} and needs one per {each}")
        vectors = getattr(self, name)(ids)
        return [vectors if name in STREAMS else _at_every_frame(vectors, frames)]


def repeated(tokens: Int[Array, "B K"], every: int, frames: int) -> Int[Array, "B T"]:
    """Tokens that last `every` frames each as one for each of `frames` frames; the last goes on to the end.

    Raises `UserError` where the two differ by more than a token.
    """
    count = tokens.shape[1]
    fits = abs(count * every - frames) <= every
    require(fits, "tokens", count, f"of {every} frames each, for {frames} frames of units")
    return jnp.take(tokens, jnp.minimum(jnp.arange(frames) // every, count - 1), axis=1)


def _at_every_frame(vectors: Float[Array, "B D"], frames: int) -> Float[Array, "B T D"]:
    return jnp.broadcast_to(vectors[:, None], (vectors.shape[0], frames, vectors.shape[1]))


def initialise(vocoder: UnitVocoder, key: jax.Array) -> dict:
    """Variables of the generator and of every predictor the config has, boxed with their logical axes."""
    c = vocoder.config
    frames, some = 4, jnp.ones((1, 4), bool)
    units = jnp.zeros((1, frames), jnp.int32)
    zeros = {name: jnp.zeros((1, frames) if name in STREAMS else (1,), jnp.int32) for name in TABLES}
    given = {name: zeros[name] for name, kind in TABLES.items() if getattr(c, kind)}

    def touch_all(module: UnitVocoder) -> None:
        if c.durations is not None:
            module.log_durations(units, some)
        if c.pitch_predictor is not None:
            module.pitch_of(units, some, given.get("speaker"))
        f0_hz = jnp.full((1, frames), 100.0)
        module(units, some, f0_hz=f0_hz, voiced=some, **given)

    return nn.init(touch_all, vocoder)(key)
