"""Resynthesised speech against the original: intelligibility, spectrum, voicing and pitch."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from slm_jax.audio.mel import LogMelConfig, spectrum_from_mel
from slm_jax.audio.pitch import PitchConfig
from slm_jax.audio.stft import griffin_lim
from slm_jax.core.errors import UserError, require

Samples = Float[np.ndarray, "_"]
"""The N samples of one signal (signals may differ in N)."""
GROSS_ERROR = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResynthesisScores:
    """`stoi`: 0..1, higher is better. `log_mel_distance`: mean |ln difference| over 80 mels. `voiced_share`: of the
    resynthesis, `voiced_share_reference`: of the original. `voicing_error`: share of frames where the two disagree.
    `f0_error_cents`: median |difference| where both are voiced, `gross_f0_error`: share of those off by over 20 %;
    both None when no frame is voiced on both sides. `stoi` is None where there is too little speech for it.
    """

    stoi: float | None
    log_mel_distance: float
    voiced_share: float
    voiced_share_reference: float
    voicing_error: float
    f0_error_cents: float | None
    gross_f0_error: float | None

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def score_resynthesis(reference: Samples, made: Samples, rate_hz: int = 16_000) -> ResynthesisScores:
    """All scores of one utterance; the longer signal is cut to the shorter."""
    reference, made = _same_length(reference, made)
    here, there = track_f0(reference, rate_hz), track_f0(made, rate_hz)
    voiced, voiced_made = here > 0, there > 0
    cents, gross = f0_errors(here, there)
    return ResynthesisScores(
        stoi=stoi_if_any(reference, made, rate_hz),
        log_mel_distance=log_mel_distance(reference, made, rate_hz),
        voiced_share=float(voiced_made.mean()),
        voiced_share_reference=float(voiced.mean()),
        voicing_error=float((voiced != voiced_made).mean()),
        f0_error_cents=cents,
        gross_f0_error=gross,
    )


def mean_scores(scores: list[ResynthesisScores]) -> dict[str, float | None]:
    """The mean of each score over utterances; utterances without a value (no voiced frame) are left out of it."""
    require(len(scores) > 0, "scores", 0, "at least one utterance is needed")
    columns = {name: [s.to_json()[name] for s in scores] for name in scores[0].to_json()}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def stoi(reference: Samples, made: Samples, rate_hz: int = 16_000) -> float:
    """Short-time objective intelligibility (Taal et al. 2011); raises `UserError` below about 0.4 s of speech."""
    from pystoi import stoi as of_signals  # its SciPy takes most of a second to load

    reference, made = _same_length(reference, made)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(of_signals(reference, made, rate_hz, extended=False))
        except RuntimeWarning as warning:
            raise UserError(f"STOI of {len(reference) / rate_hz:.2f} s: not enough speech ({warning})") from warning


def stoi_if_any(reference: Samples, made: Samples, rate_hz: int) -> float | None:
    """The same, None where there is too little speech for it."""
    try:
        return stoi(reference, made, rate_hz)
    except UserError:
        return None


def log_mel_distance(reference: Samples, made: Samples, rate_hz: int = 16_000) -> float:
    """Mean absolute difference of ln magnitude mels (80 mels, 25 ms windows every 10 ms, floor 1e-5)."""
    reference, made = _same_length(reference, made)
    samples, mask = _padded(np.stack([reference, made]), rate_hz)
    frames = _speech_mel(rate_hz).frames(samples, mask)
    count = int(np.asarray(frames.mask)[0].sum())
    require(count > 0, "frames", count, "at least one (25 ms) is needed")
    values = np.asarray(frames.values)[:, :count]  # cut on the host: JAX compiles a cut anew for every length
    return float(np.abs(values[0] - values[1]).mean())


def track_f0(samples: Samples, rate_hz: int = 16_000, hop_s: float = 0.01) -> Float[np.ndarray, "T"]:
    """F0 (Hz) every `hop_s` seconds, 0 where unvoiced."""
    padded, mask = _padded(np.asarray(samples, np.float32)[None], rate_hz)
    hz, _ = PitchConfig(rate_hz=rate_hz, hop_s=hop_s).make()(padded, mask)
    return np.asarray(hz)[0, : len(samples) // round(hop_s * rate_hz)]


def voiced_share(samples: Samples, rate_hz: int = 16_000) -> float:
    """Share of 10 ms frames that are voiced."""
    hz = track_f0(samples, rate_hz)
    return float((hz > 0).mean()) if len(hz) else 0.0


def f0_errors(
    reference_hz: Float[np.ndarray, "T"], made_hz: Float[np.ndarray, "U"]
) -> tuple[float | None, float | None]:
    """Median |error| in cents and share of gross errors (over 20 %) where both tracks are voiced; None without any."""
    size = min(len(reference_hz), len(made_hz))
    reference_hz, made_hz = np.asarray(reference_hz)[:size], np.asarray(made_hz)[:size]
    both = (reference_hz > 0) & (made_hz > 0)
    if not both.any():
        return None, None
    ratio = made_hz[both] / reference_hz[both]
    return float(np.median(np.abs(1200 * np.log2(ratio)))), float((np.abs(ratio - 1) > GROSS_ERROR).mean())


def griffin_lim_from_mel(samples: Samples, rate_hz: int = 16_000, iterations: int = 60, seed: int = 0) -> Samples:
    """The signal rebuilt by Griffin-Lim from its own 80-mel magnitudes (64 ms windows every 16 ms at 16 kHz).

    What a vocoder without learning makes of the true mel spectrogram: the yardstick beside resynthesis from units.
    """
    n_fft, hop = (rate_hz * 64 // 1000) // 2 * 2, rate_hz * 16 // 1000
    padded, _ = _padded(np.asarray(samples, np.float32)[None], rate_hz)
    settings = LogMelConfig(rate_hz=rate_hz, n_fft=n_fft, window_length=n_fft, hop=hop, padding="centre")
    mel = settings.make()
    energies = jnp.exp(mel(padded))
    magnitudes = jax.jit(spectrum_from_mel)(energies, mel.filters)
    made = griffin_lim(magnitudes, jax.random.key(seed), n_fft, hop, iterations=iterations, length=padded.shape[1])
    return np.asarray(made)[0, : len(samples)]


def _speech_mel(rate_hz: int):
    window, hop = rate_hz // 40, rate_hz // 100
    return LogMelConfig(rate_hz=rate_hz, n_fft=window, window_length=window, hop=hop).make()


def _same_length(first: Samples, second: Samples) -> tuple[Samples, Samples]:
    size = min(len(first), len(second))
    require(size > 0, "samples", size, "both signals need some")
    return np.asarray(first, np.float32)[:size], np.asarray(second, np.float32)[:size]


def _padded(
    samples: Float[np.ndarray, "B N"], rate_hz: int
) -> tuple[Float[np.ndarray, "B N2"], Bool[np.ndarray, "B N2"]]:
    """Padded to whole seconds, so that a corpus of utterances compiles few shapes."""
    size = samples.shape[1]
    more = -size % rate_hz
    mask = np.broadcast_to(np.arange(size + more) < size, (len(samples), size + more))
    return np.pad(samples, ((0, 0), (0, more))), mask
