"""The two players of vocoder training: a generator (spectra, and if wanted a judge's opinion) and its judges.

Source: Kong et al. 2020 (least squares GAN, feature matching x 2, mel L1 x 45); several resolutions as in Parallel
WaveGAN (Yamamoto et al. 2020). The parts are `generator` and `discriminator`; without discriminators the
second is absent and the spectral loss trains alone, which is what a CPU can afford.

Batch keys: `samples [B, T hop]` (float, or int16). Of a unit vocoder `units [B, T]` int, and where it reads them `f0_hz
[B, T]`, `voiced [B, T]`, `pitch_token [B, T]`, `style_token [B, T]`, `speaker [B]`; `frame_mask [B, T]` when rows are
padded. Of a mel vocoder `sample_mask`: it reads the spectrogram of what it is to say.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from slm_jax.audio.mel import LogMelConfig
from slm_jax.audio.stft import frame, window_of
from slm_jax.core.config import Config
from slm_jax.core.contracts import SHOWN, Loss, Term
from slm_jax.core.errors import require
from slm_jax.core.trees import PathPredicate, matching, variables_of
from slm_jax.decoders.discriminators import Discriminators, Judgement
from slm_jax.decoders.mel_vocoder import MelVocoder
from slm_jax.decoders.unit_vocoder import UnitVocoder

OWNS_GENERATOR: PathPredicate = matching("params/generator/")
OWNS_DISCRIMINATOR: PathPredicate = matching("params/discriminator/")
FLOOR = 1e-5
CONDITIONS = ("f0_hz", "voiced", "pitch_token", "style_token", "speaker")
"""What a unit vocoder may be told beside the units."""


class VocoderLossConfig(Config):
    """Weights and spectral resolutions, each (n_fft, hop, mels) in samples and bands; 0 mels: every bin of the STFT.

    `hifigan_losses` has the published settings; the default is the spectral recipe of the fast generator.
    """

    resolutions: tuple[tuple[int, int, int], ...] = ((1024, 256, 80), (512, 128, 64), (256, 64, 40))
    spectral_weight: float = 1.0
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    pitch_weight: float = 0.1

    def __post_init__(self) -> None:
        require(len(self.resolutions) > 0, "resolutions", self.resolutions, "at least one")
        for n_fft, hop, _ in self.resolutions:
            require(0 < hop <= n_fft and (n_fft - hop) % 2 == 0, "resolutions", (n_fft, hop), "hop <= n_fft, both even")


def hifigan_losses() -> VocoderLossConfig:
    """Mel L1 at n_fft 1024, hop 256, times 45; adversarial 1, feature matching 2."""
    return VocoderLossConfig(resolutions=((1024, 256, 80),), spectral_weight=45.0)


class GeneratorObjective:
    """What the generator minimises; owns `params/generator/`. Counts real unit frames."""

    owns = staticmethod(OWNS_GENERATOR)

    def __init__(
        self,
        config: VocoderLossConfig,
        vocoder: UnitVocoder | MelVocoder,
        discriminators: Discriminators | None = None,
    ) -> None:
        self.config, self.vocoder, self.discriminators = config, vocoder, discriminators
        self.spectra = [
            spectrum_of(n_fft, hop, mels, vocoder.config.rate_hz) for n_fft, hop, mels in config.resolutions
        ]

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        c, (_, dropout_key) = self.config, jax.random.split(rng)
        target, mask = waveform_of(batch), frame_mask_of(batch, self.vocoder.config.hop)
        generator, made = variables_of(variables, "generator"), spoken_in(self.vocoder, variables, batch, rng)
        parts = {"spectral": (self.spectral(made, target, mask), c.spectral_weight)}
        if self.discriminators is not None:
            judge = partial(self.discriminators.apply, variables_of(variables, "discriminator"))
            of_made, of_real = judge(made), jax.lax.stop_gradient(judge(target))
            parts["adversarial"] = fooling_loss(of_made), c.adversarial_weight
            parts["features"] = feature_loss(of_real, of_made), c.feature_weight
        if (
            isinstance(self.vocoder, UnitVocoder)
            and self.vocoder.config.pitch_predictor is not None
            and "f0_hz" in batch
        ):
            pitch = pitch_losses(self.vocoder, generator, batch, mask, dropout_key)
            parts |= {name: (rows, c.pitch_weight) for name, rows in pitch.items()}
        return by_frames(parts, mask)

    def shows(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> tuple[Any, Any]:
        """The waveform of a batch, for the discriminators too."""
        return spoken_in(self.vocoder, variables, batch, rng), None

    def spectral(
        self, made: Float[Array, "B N"], target: Float[Array, "B N"], mask: Bool[Array, "B T"]
    ) -> Float[Array, "B"]:
        """Mean absolute difference of log spectra over the real frames of each row, averaged over resolutions."""
        hop, total = made.shape[1] // mask.shape[1], 0.0
        for (_, step, _), spectrum in zip(self.config.resolutions, self.spectra, strict=True):
            difference = jnp.abs(spectrum(made) - spectrum(target)).mean(-1)
            centre = jnp.minimum((jnp.arange(difference.shape[1]) * step + step // 2) // hop, mask.shape[1] - 1)
            total = total + row_mean(difference, mask[:, centre])
        return total / len(self.spectra)


class DiscriminatorObjective:
    """What the discriminators minimise: real to 1, made to 0; owns `params/discriminator/`. Counts real unit frames."""

    owns = staticmethod(OWNS_DISCRIMINATOR)

    def __init__(self, vocoder: UnitVocoder | MelVocoder, discriminators: Discriminators) -> None:
        self.vocoder, self.discriminators = vocoder, discriminators

    def __call__(self, variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
        target, mask = waveform_of(batch), frame_mask_of(batch, self.vocoder.config.hop)
        made = jax.lax.stop_gradient(spoken_in(self.vocoder, variables, batch, rng))
        judge = partial(self.discriminators.apply, variables_of(variables, "discriminator"))
        return by_frames({"judging": (judging_loss(judge(target), judge(made)), 1.0)}, mask)


def spoken_in(vocoder: UnitVocoder | MelVocoder, variables: Any, batch: Any, rng: jax.Array) -> Float[Array, "B N"]:
    """What a player of the step has made of the batch already, else what the vocoder makes of it."""
    if SHOWN in batch:
        return batch[SHOWN][0]
    mask, key = frame_mask_of(batch, vocoder.config.hop), jax.random.split(rng)[0]
    return spoken(vocoder, variables_of(variables, "generator"), batch, mask, key)


def spoken(
    vocoder: UnitVocoder | MelVocoder, variables: Any, batch: Any, mask: jax.Array, key: jax.Array
) -> Float[Array, "B N"]:
    """The vocoder's waveform for a batch."""
    if isinstance(vocoder, MelVocoder):
        assert vocoder.config.features is not None  # for the type checker
        frames = vocoder.config.features.make().frames(waveform_of(batch), batch["sample_mask"])
        return vocoder.apply(variables, frames.values, mask)
    conditions = {name: batch[name] for name in CONDITIONS if name in batch}
    given = mask if "frame_mask" in batch else None
    return vocoder.apply(variables, batch["units"], given, key=key, **conditions)


def waveform_of(batch: Any) -> Float[Array, "B N"]:
    """The batch's samples in [-1, 1]."""
    samples = batch["samples"]
    return samples.astype(jnp.float32) / (32768.0 if jnp.issubdtype(samples.dtype, jnp.integer) else 1.0)


def real_waveform_of(batch: Any) -> Float[Array, "B N"]:
    """The same, silent where `sample_mask` says that nothing is real."""
    return jnp.where(batch["sample_mask"], waveform_of(batch), 0)


def frame_mask_of(batch: Any, hop: int) -> Bool[Array, "B T"]:
    """The mask of the frames, all True when the batch has none; a frame of samples counts whose first is real."""
    if "sample_mask" in batch:
        return batch["sample_mask"][:, ::hop]
    return batch["frame_mask"] if "frame_mask" in batch else jnp.ones(batch["units"].shape, bool)


def spectrum_of(n_fft: int, hop: int, mels: int, rate_hz: int) -> Any:
    """A function from samples `[B, N]` to log magnitudes `[B, N / hop, F]`: mel bands, or every bin for 0 mels."""
    if mels:
        config = LogMelConfig(
            rate_hz=rate_hz, n_fft=n_fft, window_length=n_fft, hop=hop, mels=mels, high_hz=rate_hz / 2, padding="hop"
        )
        return config.make()
    side = (n_fft - hop) // 2

    def log_magnitudes(samples: Float[Array, "B N"]) -> Float[Array, "B T F"]:
        padded = jnp.pad(samples, ((0, 0), (side, side)), mode="reflect")
        spectra = jnp.fft.rfft(frame(padded, n_fft, hop) * jnp.asarray(window_of("hann", n_fft), jnp.float32))
        return 0.5 * jnp.log(jnp.maximum(spectra.real**2 + spectra.imag**2, FLOOR**2))

    return log_magnitudes


def fooling_loss(of_made: list[Judgement]) -> Float[Array, "B"]:
    """Least squares towards 1, summed over discriminators."""
    return sum(jnp.square(1.0 - scores).mean(-1) for scores, _ in of_made)


def judging_loss(of_real: list[Judgement], of_made: list[Judgement]) -> Float[Array, "B"]:
    """Least squares of real towards 1 and made towards 0, summed over discriminators."""
    pairs = zip(of_real, of_made, strict=True)
    return sum(jnp.square(1.0 - real).mean(-1) + jnp.square(made).mean(-1) for (real, _), (made, _) in pairs)


def feature_loss(of_real: list[Judgement], of_made: list[Judgement]) -> Float[Array, "B"]:
    """Mean absolute difference of every layer's features, summed over layers and discriminators."""
    total = 0.0
    for (_, real_layers), (_, made_layers) in zip(of_real, of_made, strict=True):
        for real, made in zip(real_layers, made_layers, strict=True):
            difference = jnp.abs(real.astype(jnp.float32) - made.astype(jnp.float32))
            total = total + difference.reshape(difference.shape[0], -1).mean(-1)
    return total


def pitch_losses(
    vocoder: UnitVocoder, variables: Any, batch: Any, mask: Bool[Array, "B T"], key: jax.Array
) -> dict[str, Float[Array, "B"]]:
    """Squared error of the predicted log F0 over voiced frames, and cross-entropy of the voicing."""
    voiced = batch["voiced"].astype(bool)
    log_f0, logit = vocoder.apply(
        variables,
        batch["units"],
        mask,
        batch.get("speaker"),
        deterministic=False,
        rngs={"dropout": key},
        method=vocoder.pitch_of,
    )
    target = vocoder.apply(variables, batch["f0_hz"], voiced, method=vocoder.normalised)
    return {
        "log_f0": row_mean(jnp.square(log_f0 - target), mask & voiced),
        "voicing": row_mean(optax.sigmoid_binary_cross_entropy(logit, voiced.astype(jnp.float32)), mask),
    }


def row_mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B"]:
    """Mean over the real entries of each row, 0 for a row without any."""
    return jnp.where(mask, values, 0.0).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def by_frames(parts: dict[str, tuple[Float[Array, "B"], float]], mask: Bool[Array, "B T"]) -> Loss:
    """A term for each of the (losses of rows, weight), in which rows weigh as many frames as they have."""
    frames = mask.sum(-1).astype(jnp.float32)
    count = frames.sum()
    terms = {name: Term((rows * frames).sum(), count, weight) for name, (rows, weight) in parts.items()}
    return Loss(terms, {name: (term.total, count) for name, term in terms.items()})
