"""A voice for units: a vocoder with its weights, whose sounds are of any length."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import nearest, require
from slm_jax.decoders.unit_vocoder import UnitVocoder

Units = Int[np.ndarray, "_"]
Samples = Float[np.ndarray, "_"]

RUN_BUCKET, FRAME_BUCKET = 64, 256
"""Sequences are padded to multiples of these numbers of units and frames, so that few shapes compile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitVoice:
    """Speaks units; all work is on lists of utterances of any length.

    `speakers`: names of its voices, empty where it has one without a name. `frames_per_unit`: how long a unit lasts
    where nobody trained the vocoder to say it, None where somebody did.
    """

    vocoder: UnitVocoder
    vocoder_params: Any
    speakers: tuple[str, ...] = ()
    frames_per_unit: float | int | None = None

    @property
    def rate_hz(self) -> int:
        """Samples per second of what goes in and out."""
        return self.vocoder.config.rate_hz

    def decode(
        self,
        runs: Sequence[Units],
        *,
        durations: Sequence[Units] | None = None,
        f0: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
        pitch_token: Sequence[Units] | None = None,
        style_token: Sequence[Units] | None = None,
        speaker: int | Sequence[int] = 0,
    ) -> list[Samples]:
        """Each sequence of units as speech; `speaker`: place in `speakers`, one for all or one for each.

        Durations (frames per unit) and F0 (Hz and voicing per frame) are predicted where they are not given. A vocoder
        that reads tokens of pitch and style needs one of each for every unit.
        """
        require(all(len(row) for row in runs), "units", "an empty sequence", "there must be something to say")
        units, mask = padded(runs, RUN_BUCKET)
        if durations is None:
            frames = self._frames(units, mask)
        else:
            frames, _ = padded(durations, RUN_BUCKET)
        longest = int((frames * mask).sum(1).max())
        capacity = -(-longest // FRAME_BUCKET) * FRAME_BUCKET
        given = {} if f0 is None else pitch_rows(f0, capacity)
        for name, tokens in (("pitch_token", pitch_token), ("style_token", style_token)):
            given |= {} if tokens is None else {name: padded(tokens, RUN_BUCKET)[0]}
        if self.vocoder.config.speakers:
            given["speaker"] = np.broadcast_to(np.asarray(speaker, np.int32), len(runs))
        wave = self._speak(self.vocoder_params, units, mask, frames, capacity, **given)
        samples, real = np.asarray(wave.samples), np.asarray(wave.mask)
        return [row[: int(kept.sum())] for row, kept in zip(samples, real, strict=True)]

    def said(self, rows: Sequence[Units], speaker: int = 0, **tokens: Sequence[Units]) -> list[Samples]:
        """Each row spoken, with its `pitch_token` and `style_token`; silence of no length where there is nothing."""
        full = [row for row in rows if len(row)]
        given: Any = {name: [one for one in column if len(one)] for name, column in tokens.items()}
        spoken = iter(self.decode(full, speaker=speaker, **given) if full else [])
        return [next(spoken) if len(row) else np.zeros(0, np.float32) for row in rows]

    def voice(self, speaker: str | None) -> int:
        """The place of a voice."""
        known = f"voices: {', '.join(self.speakers)}" if self.speakers else "this system has one voice without a name"
        hint = "" if speaker is None else nearest(speaker, self.speakers)
        require(speaker is None or speaker in self.speakers, "speaker", speaker, f"not known{hint}; {known}")
        return 0 if speaker is None else self.speakers.index(speaker)

    def _frames(self, units: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """How many frames each unit lasts."""
        if self.frames_per_unit is None:
            return np.asarray(self._durations(self.vocoder_params, units, mask))
        return np.where(mask, max(1, round(self.frames_per_unit)), 0).astype(np.int32)

    @cached_property
    def _durations(self) -> Callable:
        def predict(params: Any, units: jax.Array, mask: jax.Array) -> jax.Array:
            return self.vocoder.apply({"params": params}, units, mask, method=self.vocoder.predicted_frames)

        return jax.jit(predict)

    @cached_property
    def _speak(self) -> Callable:
        @partial(jax.jit, static_argnums=4)
        def speak(params: Any, units: jax.Array, mask: jax.Array, durations: jax.Array, capacity: int, **given: Any):
            vocoder = self.vocoder
            return vocoder.apply(
                {"params": params}, units, mask, capacity, durations=durations, method=vocoder.synthesise, **given
            )

        return speak


def padded(rows: Sequence[np.ndarray], multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of integers as one right-padded array whose length is a multiple of `multiple`, and its mask."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return ids, mask


def pitch_rows(f0: Sequence[tuple[np.ndarray, np.ndarray]], capacity: int) -> dict[str, np.ndarray]:
    """F0 and voicing per frame, padded with unvoiced frames or cut to `capacity`."""
    f0_hz, voiced = np.zeros((len(f0), capacity), np.float32), np.zeros((len(f0), capacity), bool)
    for i, (hz, on) in enumerate(f0):
        count = min(len(hz), capacity)
        f0_hz[i, :count], voiced[i, :count] = hz[:count], on[:count]
    return {"f0_hz": f0_hz, "voiced": voiced}
