"""Segments of frames (units, F0) with the samples they stand for: training a unit vocoder."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.data.passes import float_samples


class VocoderSegmentConfig(Config):
    """A random segment of `frames` frames of `hop_samples`; frame t stands for samples [t * hop, (t + 1) * hop).

    F0 value p stands for the time (p + 1/2) `f0_step_s` seconds; it is read at the middle of each frame.
    `speakers` lists the names that `speaker` may take, in the order of the embedding; empty means one voice.
    `pitch_every`, `style_every`: frames of units that a token of `pitch_token` or `style_token` lasts, 0 where an item
    has none.
    """

    frames: int = 32
    hop_samples: int = 320
    rate_hz: int = 16_000
    f0_step_s: float = 0.0125
    units: str = "units"
    f0: str = "f0_hz"
    speakers: tuple[str, ...] = ()
    pitch_every: int = 0
    style_every: int = 0

    def __post_init__(self) -> None:
        for name in ("frames", "hop_samples", "rate_hz", "f0_step_s"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `samples` `[N]`, frame-level units `[T]`, F0 and `speaker` to one example.

        The example: `units` `[T]` int32, `f0_hz` `[T]` float32 (0 where unvoiced), `voiced` `[T]`, `frame_mask` `[T]`,
        `samples` `[T * hop]` float32, `speaker` int32; `pitch_token` and `style_token` `[T]` int32 where there are any.
        An utterance shorter than the segment is padded with 0.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            total = min(len(item[self.units]), len(item["samples"]) // self.hop_samples)
            start = int(rng.integers(max(0, total - self.frames) + 1))
            stop = min(start + self.frames, total)
            f0_hz, voiced = self.frame_f0(item[self.f0], start, stop)
            samples = float_samples(item["samples"][start * self.hop_samples : stop * self.hop_samples])
            pad = self.frames - (stop - start)
            streams = self.streams.items()
            tokens = {name: np.pad(tokens_at(item[name], every, start, stop), (0, pad)) for name, every in streams}
            return {
                "units": np.pad(item[self.units][start:stop].astype(np.int32), (0, pad)),
                "f0_hz": np.pad(f0_hz, (0, pad)),
                "voiced": np.pad(voiced, (0, pad)),
                "frame_mask": np.arange(self.frames) < stop - start,
                "samples": np.pad(samples, (0, pad * self.hop_samples)),
                "speaker": np.asarray(self.speaker_id(item.get("speaker", "")), np.int32),
                **tokens,
            }

        return example

    @property
    def streams(self) -> dict[str, int]:
        """The fields with tokens beside the units, and how many frames each of their tokens lasts."""
        both = {"pitch_token": self.pitch_every, "style_token": self.style_every}
        return {name: every for name, every in both.items() if every}

    def frame_f0(
        self, f0_hz: Float[np.ndarray, "P"], start: int, stop: int
    ) -> tuple[Float[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
        """F0 (Hz, 0 where unvoiced) and voicing in the middle of frames `start` to `stop`."""
        seconds = (np.arange(start, stop) + 0.5) * self.hop_samples / self.rate_hz
        return f0_at(f0_hz, seconds / self.f0_step_s - 0.5)

    def speaker_id(self, name: str) -> int:
        """Place of a speaker's name in `speakers`; raises `UserError` for one that is not listed."""
        if not self.speakers:
            return 0
        if name not in self.speakers:
            known = len(self.speakers)
            raise UserError(f"speaker {name!r} is not one of the {known} known ones{nearest(name, self.speakers)}")
        return self.speakers.index(name)


def tokens_at(tokens: Int[np.ndarray, "K"], every: int, start: int, stop: int) -> Int[np.ndarray, "T"]:
    """The tokens of frames `start` to `stop`, int32; the last one goes on, and where there is none it is 0."""
    if not len(tokens):
        return np.zeros(stop - start, np.int32)
    return tokens[np.minimum(np.arange(start, stop) // every, len(tokens) - 1)].astype(np.int32)


def f0_at(
    f0_hz: Float[np.ndarray, "P"], places: Float[np.ndarray, "T"]
) -> tuple[Float[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """F0 at fractional places of a track in which 0 means unvoiced, and voicing; unvoiced beyond its end.

    The nearest value decides voicing; between two voiced values F0 is interpolated, never between voiced and 0.
    """
    if len(f0_hz) == 0:
        return np.zeros(len(places), np.float32), np.zeros(len(places), bool)
    last = len(f0_hz) - 1
    near = np.clip(np.floor(places + 0.5).astype(int), 0, last)
    low, high = np.clip(np.floor(places).astype(int), 0, last), np.clip(np.ceil(places).astype(int), 0, last)
    between = f0_hz[low] + (places - np.floor(places)) * (f0_hz[high] - f0_hz[low])
    value = np.where((f0_hz[low] > 0) & (f0_hz[high] > 0), between, f0_hz[near])
    voiced = (f0_hz[near] > 0) & (places <= last + 0.5)
    return np.where(voiced, value, 0).astype(np.float32), voiced
