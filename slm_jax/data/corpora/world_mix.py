"""Turns in time: where each starts, and the arrays of all of them together, by channel or mixed."""

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.data.corpora.world_voice import FRAMES_PER_S, Speech, to_int16

MARGIN_S = 0.15
"""Seconds between a remark of the listener and what else the listener says, and between its ends and the turn's."""
LARGEST_OVERLAP = 0.4
"""The part of a turn that an overlap may cover, so that one at either end leaves a middle."""

AUDIBLE = 1e-3
"""Of the energy of a turn's loudest frame: what is less is not heard beside it."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """A turn that starts at a frame of the pitch (1/80 s) on a channel, so that its pitch needs no shift.

    `turn`: its place in the plan, of a remark that of the turn in which it is heard.
    """

    speech: Speech
    frame: int
    channel: int
    voice: int
    turn: int
    is_remark: bool = False

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(self.speech.words)

    @property
    def start(self) -> int:
        """Its first sample, the one nearest to its frame."""
        return round(self.frame * self.speech.rate_hz / FRAMES_PER_S)

    @property
    def start_s(self) -> float:
        """The time of its first sample."""
        return self.start / self.speech.rate_hz

    @property
    def end_s(self) -> float:
        """The end of its last sample."""
        return self.start_s + len(self.speech.samples) / self.speech.rate_hz

    @property
    def words_s(self) -> tuple[float, float]:
        """Start of its first word and end of its last."""
        return self.start_s + float(self.speech.word_start_s[0]), self.start_s + float(self.speech.word_end_s[-1])

    @functools.cached_property
    def audible_s(self) -> tuple[float, float]:
        """When it begins and ends to be heard; the time of the last phone goes on while the sound fades."""
        first, last = audible(self.speech)
        return self.start_s + first, self.start_s + last


def audible(speech: Speech) -> tuple[float, float]:
    """The stretch of a turn, in its own seconds, from the first to the last frame with a 1000th of the most energy."""
    energy = _frame_energy(speech, frames_of(len(speech.samples), speech.rate_hz))
    loud = np.flatnonzero(energy > AUDIBLE * energy.max())
    return float(loud[0]) / FRAMES_PER_S, float(loud[-1] + 1) / FRAMES_PER_S


def frames_of(samples: int, rate_hz: int) -> int:
    """Frames of the pitch that cover so many samples."""
    return -(-samples * FRAMES_PER_S // rate_hz)


def place(spoken: list[Speech], gaps: list[float], voices: list[int], channels: int) -> list[Placed]:
    """Turns one after the other: `gaps` in seconds between the ends of the samples; below 0 they overlap as heard.

    An overlap covers at most four tenths of either turn, and no voice goes on before it has ended. `voices`: 0 or 1 per
    turn, which is its channel where there are two.
    """
    placed: list[Placed] = []
    for turn, (speech, voice) in enumerate(zip(spoken, voices, strict=True)):
        frame = _next_frame(placed, speech, gaps[turn - 1]) if placed else 0
        placed.append(Placed(speech, frame, voice if channels == 2 else 0, voice, turn))
    return placed


def _next_frame(placed: list[Placed], speech: Speech, gap_s: float) -> int:
    before, rate_hz = placed[-1], speech.rate_hz
    if gap_s >= 0:
        return before.frame + frames_of(len(before.speech.samples) + round(gap_s * rate_hz), rate_hz)
    (first, last), (begins, ends) = before.audible_s, audible(speech)
    overlap_s = min(-gap_s, LARGEST_OVERLAP * (last - first), LARGEST_OVERLAP * (ends - begins))
    own_s = placed[-2].words_s[1] - float(speech.word_start_s[0]) if len(placed) > 1 else 0.0
    return max(before.frame, math.ceil(own_s * FRAMES_PER_S), round((last - overlap_s - begins) * FRAMES_PER_S))


def with_remarks(placed: list[Placed], remarks: list[tuple[int, float, Speech]], channels: int) -> list[Placed]:
    """The turns with the remarks `(turn, place, speech)` of listeners, in the order in which they begin to be heard.

    A remark lies within what is heard of its turn and clear of the listener's own turns; `place` in [0, 1] chooses
    among the times that are left, and where there are none there is no remark.
    """
    found = list(placed)
    for turn, where, speech in remarks:
        host = placed[turn]
        free_s, until_s = _free(placed, turn)
        first, last = audible(speech)[0], max(audible(speech)[1], float(speech.word_end_s[-1]))
        if until_s - free_s >= last - first:
            at_s = free_s + where * (until_s - free_s - (last - first)) - first
            voice = 1 - host.voice
            frame = max(host.frame, round(at_s * FRAMES_PER_S))
            found.append(Placed(speech, frame, voice if channels == 2 else 0, voice, turn, is_remark=True))
    return sorted(found, key=lambda one: one.audible_s[0])


def _free(placed: list[Placed], turn: int) -> tuple[float, float]:
    """The times within a turn at which nobody else is heard, seconds."""
    start_s, end_s = placed[turn].audible_s
    if turn > 0:
        start_s = max(start_s, placed[turn - 1].audible_s[1], placed[turn - 1].words_s[1])
    if turn + 1 < len(placed):
        end_s = min(end_s, placed[turn + 1].audible_s[0], placed[turn + 1].words_s[0])
    return start_s + MARGIN_S, end_s - MARGIN_S


def spans_s(placed: list[Placed]) -> list[tuple[float, float]]:
    """Start and end of every turn, seconds. Two turns of one voice share no time: their silences meet half way."""
    starts, ends = [one.start_s for one in placed], [one.end_s for one in placed]
    for voice in (0, 1):
        own = [i for i, one in enumerate(placed) if one.voice == voice]
        for a, b in itertools.pairwise(own):
            if ends[a] > starts[b]:
                ends[a] = starts[b] = (placed[a].words_s[1] + placed[b].words_s[0]) / 2
    return list(zip(starts, ends, strict=True))


def mixed(placed: list[Placed], channels: int) -> dict[str, np.ndarray]:
    """The arrays of a record from its turns, which stand in their order.

    `samples` int16 and `f0_hz` per 12.5 ms are `[N]` and `[T]`, or with two channels `[N, 2]` and `[T, 2]`. Where two
    voices meet in a channel its pitch is that of the turn with more energy in the frame. Phones and words stand turn
    by turn; `phone_turn` and `word_turn` say whose. A pause after a turn belongs to its last silence.
    """
    rate_hz = placed[0].speech.rate_hz
    length = max(one.start + len(one.speech.samples) for one in placed)
    samples = np.zeros((length, channels), np.float32)
    f0 = np.zeros((frames_of(length, rate_hz), channels), np.float32)
    loudest = np.full(f0.shape, -1.0)
    for one in placed:
        samples[one.start : one.start + len(one.speech.samples), one.channel] += one.speech.samples
        _louder(f0[one.frame :, one.channel], loudest[one.frame :, one.channel], one.speech)
    if channels == 1:
        samples, f0 = samples[:, 0], f0[:, 0]
    return {"samples": to_int16(samples), "f0_hz": f0, **_timed(placed, length / rate_hz)}


def _louder(f0: Float[np.ndarray, "T"], loudest: Float[np.ndarray, "T"], speech: Speech) -> None:
    """Write the pitch of a turn where it is the loudest so far."""
    count = min(len(f0), len(speech.f0_hz))
    energy = _frame_energy(speech, count)
    wins = energy > loudest[:count]
    f0[:count][wins], loudest[:count][wins] = speech.f0_hz[:count][wins], energy[wins]


def _frame_energy(speech: Speech, frames: int) -> Float[np.ndarray, "T"]:
    """Sums of squares per frame of the pitch."""
    edges = np.arange(frames) * speech.rate_hz // FRAMES_PER_S
    return np.add.reduceat(np.square(speech.samples, dtype=np.float64), edges)


def _timed(placed: list[Placed], total_s: float) -> dict[str, np.ndarray]:
    """Phones and words in the time of the record."""
    parts: list[dict[str, Any]] = []
    for i, one in enumerate(placed):
        speech, at = one.speech, np.float32(one.start_s)
        start_s = speech.phones.start_s + at
        later = [placed[i + 1].start_s if i + 1 < len(placed) else total_s]
        end_s = np.append(start_s[1:], np.float32(max(one.end_s, *later))).astype(np.float32)
        parts.append(
            {
                "phone_ids": speech.phones.ids.astype(np.int32),
                "phone_start_s": start_s,
                "phone_end_s": end_s,
                "phone_turn": np.full(len(start_s), i, np.int32),
                "word_start_s": speech.word_start_s + at,
                "word_end_s": speech.word_end_s + at,
                "word_turn": np.full(len(speech.word_start_s), i, np.int32),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
