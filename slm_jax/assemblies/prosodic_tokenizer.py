"""Speech to units with their durations and pitch, as classes and as real numbers (pGSLM, Kharitonov et al. 2021).

F0 is averaged (Hz) over the voiced frames of each run of equal units; of its logarithm the speaker's mean is taken off.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.audio.pitch import PitchConfig
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import nearest, require
from slm_jax.core.paths import AnyPath
from slm_jax.core.token_spec import Codebook, TokenSpec
from slm_jax.token_compression.dedup import dedup_row

SETTINGS = "prosody.json"
UNVOICED = 0
"""The class of runs without a voiced frame."""
LEAST_STD = 0.05
"""Of ln F0, so that a voice on one note can be divided by it."""
COLUMNS = {"units": ("units", "runs"), "duration": ("duration", "durations"), "log_f0": ("log_f0", "run_log_f0")}
CLASSES = {"duration": ("duration_class", "run_duration_class"), "log_f0": ("f0_class", "run_f0_class")}
"""Columns of each stream, frame by frame and run by run; of real numbers above, of classes here."""


class ProsodyConfig(Config):
    """How durations and pitch become streams.

    `pitch`: the tracker; a unit's frame lasts a whole number of its hops. `longest`: frames at which durations are
    cut; their classes are 0 to `longest`, of which 0 is left for what is no unit. `bins`: classes of log F0 that hold
    equally many runs of the training speech each; before them stands the class of the unvoiced. `scaled`: log F0 is
    divided by the speaker's standard deviation too. `continuous`: which of "duration" and "log_f0" are offered as real
    numbers (frames, not cut; 0 where unvoiced) instead of classes; the tables hold both in any case.
    """

    pitch: PitchConfig = PitchConfig(hop_s=0.005)
    longest: int = 20
    bins: int = 32
    scaled: bool = False
    continuous: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.longest >= 1, "longest", self.longest, "frames, at least 1")
        require(self.bins >= 2, "bins", self.bins, "at least 2")
        known = all(name in CLASSES for name in self.continuous)
        require(known, "continuous", self.continuous, f"some of {', '.join(CLASSES)}")

    def spec(self, units: TokenSpec) -> TokenSpec:
        """The streams over those of a tokenizer of units."""
        sizes = {"units": units.units, "duration": self.longest + 1, "log_f0": self.bins + 1}
        sizes |= dict.fromkeys(self.continuous, 0)
        places = [CLASSES[name] if name in CLASSES and size else COLUMNS[name] for name, size in sizes.items()]
        return TokenSpec(
            codebooks=tuple(Codebook(name=name, size=size) for name, size in sizes.items()),
            hop=units.hop,
            rate_hz=units.rate_hz,
            columns=tuple(frames for frames, _ in places),
            runs=tuple(runs for _, runs in places),
            durations="durations",
        )

    def tracks_per_frame(self, units: TokenSpec) -> int:
        """Values of F0 in the time of one unit; raises `UserError` when it is no whole number."""
        same = self.pitch.rate_hz == units.rate_hz
        require(same, "pitch.rate_hz", self.pitch.rate_hz, f"the units are made at {units.rate_hz} Hz")
        hop = round(self.pitch.hop_s * self.pitch.rate_hz)
        rule = f"a unit's frame lasts {units.hop} samples: a whole number of hops is needed"
        require(units.hop % hop == 0, "pitch.hop_s", self.pitch.hop_s, rule)
        return units.hop // hop


class Voice(NamedTuple):
    """Mean and standard deviation of ln F0 (Hz) over voiced frames."""

    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class Heard:
    """The pitch of one utterance: mean F0 (Hz) of every run, 0 where unvoiced; and sums from which a voice is known.

    `sums`: number of voiced frames, sum of ln F0 and of its square, float64.
    """

    f0_hz: Float[np.ndarray, "S"]
    sums: Float[np.ndarray, "3"]


@dataclasses.dataclass(frozen=True)
class ProsodicTokenizer:
    """`units`: the tokenizer of units. `edges`: where one class of log F0 ends. `voices`: of the speakers known."""

    units: Any
    config: ProsodyConfig
    edges: Float[np.ndarray, "E"]
    voices: Mapping[str, Voice]

    @property
    def spec(self) -> TokenSpec:
        """Units, durations, log F0."""
        return self.config.spec(self.units.spec)

    def frame_count(self, n: Any) -> Any:
        """Frames of `n` samples."""
        return self.units.frame_count(n)

    def encode_all(
        self, waveforms: Sequence[Float[np.ndarray, "_"]], speaker: str | None = None
    ) -> list[dict[str, np.ndarray]]:
        """The columns of each waveform, which `speaker` said; None: a voice not known, normalised by what it says here.

        Raises `UserError` for a speaker without statistics and for a waveform shorter than a frame.
        """
        return [columns for columns, _ in self.encode_voices(waveforms, speaker)]

    def encode_voices(
        self, waveforms: Sequence[Float[np.ndarray, "_"]], speaker: str | None = None
    ) -> list[tuple[dict[str, np.ndarray], Voice]]:
        """The same with the voice by which the pitch of each was normalised."""
        known = speaker is None or speaker in self.voices
        require(known, "speaker", speaker, f"one of {', '.join(self.voices)}{nearest(str(speaker), self.voices)}")
        units = self.units.encode_all(waveforms)
        heard = [self._heard(samples, one) for samples, one in zip(waveforms, units, strict=True)]
        return [
            (self.columns(one, pitch, speaker), self._voice(pitch, speaker))
            for one, pitch in zip(units, heard, strict=True)
        ]

    def columns(self, units: Int[np.ndarray, "T"], heard: Heard, speaker: str | None) -> dict[str, np.ndarray]:
        """What the tables hold of one utterance; a speaker without statistics is normalised by this utterance."""
        runs, durations = dedup_row(units)
        log_f0 = normalised(heard.f0_hz, self._voice(heard, speaker), self.config.scaled)
        f0_class = np.where(heard.f0_hz > 0, 1 + np.searchsorted(self.edges, log_f0), UNVOICED)
        of_runs = {
            ("duration", "durations"): durations,
            CLASSES["duration"]: np.minimum(durations, self.config.longest),
            COLUMNS["log_f0"]: log_f0,
            CLASSES["log_f0"]: f0_class.astype(np.int32),
        }
        made = {"units": units.astype(np.int32), "runs": runs.astype(np.int32)}
        for (by_frame, by_run), values in of_runs.items():
            made |= {by_frame: np.repeat(values, durations), by_run: values}
        return made

    def log_f0_of(self, f0_class: Int[np.ndarray, "S"]) -> Float[np.ndarray, "S"]:
        """The middle of each class (its edge for the two outer ones), 0 where unvoiced: the inverse of the classes."""
        edges = self.edges
        middles = np.concatenate([[0.0], edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
        return middles.astype(np.float32)[f0_class]

    def f0_hz_of(self, f0_class: Int[np.ndarray, "S"], voice: Voice) -> Float[np.ndarray, "S"]:
        """F0 (Hz) that the classes stand for in a voice, 0 where unvoiced."""
        factor = voice.std if self.config.scaled else 1.0
        hz = np.exp(self.log_f0_of(f0_class) * factor + voice.mean)
        return np.where(f0_class == UNVOICED, 0.0, hz).astype(np.float32)

    def save(self, folder: AnyPath) -> None:
        """Write everything but the tokenizer of units, which belongs to the stage that made it."""
        folder.mkdir(parents=True, exist_ok=True)
        voices = {name: voice._asdict() for name, voice in self.voices.items()}
        kept = {"config": self.config.to_json(), "edges": self.edges.tolist(), "voices": voices}
        (folder / SETTINGS).write_text(json.dumps(kept, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: AnyPath, units: Any) -> "ProsodicTokenizer":
        """The inverse of `save`; raises `UserError` when the file is missing or holds something else."""
        path = folder / SETTINGS
        require(path.is_file(), "tokenizer", str(folder), f"has no {SETTINGS}")
        kept = json.loads(path.read_text(encoding="utf-8"))
        config = from_json(kept["config"])
        require(isinstance(config, ProsodyConfig), "config", str(path), "no ProsodyConfig")
        assert isinstance(config, ProsodyConfig)  # for the type checker
        voices = {name: Voice(**voice) for name, voice in kept["voices"].items()}
        return cls(units, config, np.asarray(kept["edges"], np.float64), voices)

    def _voice(self, heard: Heard, speaker: str | None) -> Voice:
        known = None if speaker is None else self.voices.get(speaker)
        return known or voice_of(heard.sums)

    def _heard(self, samples: np.ndarray, units: np.ndarray) -> Heard:
        pitch = self.config.pitch
        padded = np.pad(np.asarray(samples, np.float32), (0, -len(samples) % pitch.rate_hz))  # few shapes to compile
        real = np.arange(len(padded)) < len(samples)
        count = len(samples) // round(pitch.hop_s * pitch.rate_hz)
        f0_hz = np.asarray(pitch.make()(padded[None], real[None])[0])[0, :count]
        return heard_in(f0_hz, units, self.config.tracks_per_frame(self.units.spec))


def heard_in(f0_hz: Float[np.ndarray, "P"], units: Int[np.ndarray, "T"], per_frame: int) -> Heard:
    """The pitch of the runs of `units` in a track that has `per_frame` values (Hz, 0 where unvoiced) for each frame."""
    _, durations = dedup_row(units)
    run = np.repeat(np.arange(len(durations)), durations * per_frame)[: len(f0_hz)]
    track = f0_hz[: len(run)].astype(np.float64)
    counts = np.bincount(run[track > 0], minlength=len(durations))
    means = np.bincount(run, track, minlength=len(durations)) / np.maximum(counts, 1)
    logs = np.log(f0_hz[f0_hz > 0].astype(np.float64))
    return Heard(means.astype(np.float32), np.asarray([len(logs), logs.sum(), np.square(logs).sum()], np.float64))


def voice_of(sums: Float[np.ndarray, "3"]) -> Voice:
    """The voice of one or more utterances by their added sums; mean 0 where nothing is voiced."""
    count, total, squares = (float(value) for value in sums)
    mean = total / max(count, 1.0)
    return Voice(mean, max(squares / max(count, 1.0) - mean**2, LEAST_STD**2) ** 0.5)


def normalised(f0_hz: Float[np.ndarray, "S"], voice: Voice, scaled: bool) -> Float[np.ndarray, "S"]:
    """ln F0 without the voice's mean (and over its standard deviation), float32; 0 where unvoiced."""
    logs = np.log(np.where(f0_hz > 0, f0_hz, 1.0)) - voice.mean
    return np.where(f0_hz > 0, logs / voice.std if scaled else logs, 0.0).astype(np.float32)


def quantile_edges(values: Float[np.ndarray, "N"], bins: int) -> Float[np.ndarray, "E"]:
    """The `bins` - 1 values between classes that hold equally many of `values`; float64.

    The paper's code reads them off a histogram of 100,000 bins, here they are exact.
    """
    return np.quantile(values.astype(np.float64), np.arange(1, bins) / bins)
