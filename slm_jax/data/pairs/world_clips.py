"""Clips in the world's voices, which are spoken when somebody wants to hear them."""

import dataclasses

import numpy as np
from jaxtyping import Float

from slm_jax.audio.files import to_float
from slm_jax.data.corpora.world_manner import levelled
from slm_jax.data.corpora.world_voice import Speaker, Speech, the_voice, to_int16

FADE_S = 0.01
"""Either side of a cut fades for so long, whatever is joined there: a click would tell what was changed."""


@dataclasses.dataclass(frozen=True)
class Manner:
    """Who speaks how: `speed` as a factor, `level` one of `world_manner.LEVELS_DB`."""

    speaker: Speaker
    speed: float
    level: str = "normal"


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Some words of one sentence: from word `first` to before word `end` (None: to its end).

    `symbols`: how the whole sentence is said; all of it is spoken, and then cut between words. `seed`: of its noise.
    """

    symbols: str
    manner: Manner
    seed: tuple[int, ...]
    first: int = 0
    end: int | None = None

    def samples(self, rate_hz: int) -> Float[np.ndarray, "N"]:
        """float32 at `rate_hz` (Hz); the level is that of the whole sentence."""
        words, how = tuple(self.symbols.split(" ")), self.manner
        said = the_voice().speak_symbols(
            self.symbols, words, speed=how.speed, speaker=how.speaker, seed=list(self.seed), rate_hz=rate_hz
        )
        said = levelled(said, {"energy": how.level})
        start = 0 if self.first == 0 else _cut(said, self.first)
        end = len(said.samples) if self.end is None else _cut(said, self.end)
        return _faded(said.samples[start:end], rate_hz, first=self.first > 0, last=self.end is not None)


@dataclasses.dataclass(frozen=True)
class SpokenClip:
    """Stretches, one after the other, with `pause_s` seconds of silence between; `text`: what is said."""

    text: str
    stretches: tuple[Stretch, ...]
    pause_s: float = 0.0

    def samples(self, rate_hz: int) -> Float[np.ndarray, "N"]:
        """float32 in [-1, 1] at `rate_hz` (Hz), in 16 bits as a corpus keeps it; the same each time."""
        pause = np.zeros(round(self.pause_s * rate_hz), np.float32)
        rows = [row for one in self.stretches for row in (pause, one.samples(rate_hz))]
        return to_float(to_int16(np.concatenate(rows[1:])))


def _cut(said: Speech, word: int) -> int:
    """The sample in the middle between a word and the one before it."""
    return round(float(said.word_end_s[word - 1] + said.word_start_s[word]) / 2 * said.rate_hz)


def _faded(samples: np.ndarray, rate_hz: int, *, first: bool, last: bool) -> np.ndarray:
    """The samples with a fade at those of their ends that are cuts."""
    length = min(round(FADE_S * rate_hz), len(samples))
    ramp, faded = np.linspace(0.0, 1.0, length, dtype=np.float32), samples.astype(np.float32)
    if first:
        faded[:length] *= ramp
    if last:
        faded[len(faded) - length :] *= ramp[::-1]
    return faded
