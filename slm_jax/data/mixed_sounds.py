"""Recordings of which several sound at once, so that a codec learns more than one voice in a quiet room."""

from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.data.passes import float_samples


class MixedConfig(Config):
    """`shares`: of recordings that sound alone, of those with one other, with two others ...; they sum to 1.

    Each of the others is `gain_db` (decibels, drawn evenly) louder than it was recorded. Defaults are EnCodec's
    (Défossez et al. 2022, 4.1), whose third kind leaves music out.
    """

    shares: tuple[float, ...] = (0.64, 0.24, 0.12)
    gain_db: tuple[float, float] = (-10.0, 6.0)

    def __post_init__(self) -> None:
        fits = min(self.shares, default=-1.0) >= 0 and abs(sum(self.shares) - 1) < 1e-6
        require(fits, "shares", self.shares, "each 0 or more, 1 together")
        require(self.gain_db[0] <= self.gain_db[1], "gain_db", self.gain_db, "the least and the most")


class MixedSounds:
    """The items of a source, each with the others that `config` draws for it laid over it from its beginning.

    A recording keeps its length: others that are longer are cut at random, shorter ones begin at random. An item gets
    the same others whenever it is read.
    """

    def __init__(self, source: Any, config: MixedConfig) -> None:
        self.source, self.config = source, config

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item, rng = self.source[index], np.random.default_rng((int(index), len(self)))
        others = int(rng.choice(len(self.config.shares), p=self.config.shares))
        if not others:
            return item
        samples = float_samples(item["samples"]).copy()
        for place in rng.integers(len(self), size=others):
            gain = 10 ** (rng.uniform(*self.config.gain_db) / 20)
            samples += gain * laid(float_samples(self.source[int(place)]["samples"]), samples.shape, rng)
        return item | {"samples": np.clip(samples, -1.0, 1.0)}


def laid(
    other: Float[np.ndarray, "M *C"], shape: tuple[int, ...], rng: np.random.Generator
) -> Float[np.ndarray, "N *C"]:
    """A recording at a random place in a silence of `shape`, or a random stretch of that length."""
    spare = shape[0] - len(other)
    if spare < 0:
        start = int(rng.integers(1 - spare))
        return other[start : start + shape[0]]
    before = int(rng.integers(spare + 1))
    return np.pad(other, [(before, spare - before), *[(0, 0)] * (len(shape) - 1)])
