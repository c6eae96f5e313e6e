"""The manner in which things are said: pauses, overlaps, remarks of the listener, and styles of a voice."""

import dataclasses
from typing import Any

import numpy as np

from slm_jax.data.corpora.settings import STYLES, WorldConfig
from slm_jax.data.corpora.world_voice import Speaker, Speech

RATES = {"slow": 0.75, "normal": 1.0, "fast": 1.3}
RATE_SPREAD = 0.03
"""A drawn rate varies by this share; with the speakers' tempo (0.92 to 1.08) the three do not touch."""
LEVELS_DB = {"soft": -38.0, "normal": -31.0, "loud": -24.0}
"""Root mean square of a turn, dB of full scale. The voice itself lies between -29 and -22 dB, by speaker and words."""
REGISTERS = {"low": 0.82, "normal": 1.0, "high": 1.22}
"""Factors on the pitch, about three and a half semitones apart; formants stay."""
LABELS: dict[str, dict[str, float]] = {"rate": RATES, "energy": LEVELS_DB, "register": REGISTERS}
"""Style -> label -> its factor or level."""
BACKCHANNELS = ("Yes.", "I see.", "Of course.", "Really?", "All right.")
SHORTEST_OVERLAP_S = 0.1


def gaps(count: int, config: WorldConfig, rng: np.random.Generator, *, lively: bool) -> list[float]:
    """Seconds from the end of a turn to the next one's start; below 0 both are heard for as much.

    Only `lively` talk has overlaps.
    """
    pauses = rng.uniform(config.shortest_pause_s, config.longest_pause_s, count)
    overlaps = rng.uniform(SHORTEST_OVERLAP_S, config.longest_overlap_s, count)
    overlapping = rng.random(count) < (config.overlap_share if lively else 0.0)
    drawn = np.where(overlapping, -overlaps, pauses)
    return [round(float(gap), 4) for gap in drawn]


def remarks(turns: list[Any], config: WorldConfig, rng: np.random.Generator) -> list[list[Any]]:
    """`[turn, place, text]` of backchannels: in which turn, where (0 first, 1 last possible), and what is said."""
    drawn = rng.random((len(turns), 3))
    return [
        [turn, round(float(place), 4), BACKCHANNELS[int(which * len(BACKCHANNELS))]]
        for turn, (share, place, which) in enumerate(drawn)
        if share < config.backchannel_share
    ]


def styles(turns: int, config: WorldConfig, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Per turn the label of each style of the config and, where the rate is one, the speed that makes it."""
    drawn: list[dict[str, Any]] = []
    for _ in range(turns):
        picks, spread = rng.integers(3, size=len(STYLES)), rng.uniform(-RATE_SPREAD, RATE_SPREAD)
        labels = {name: list(LABELS[name])[pick] for name, pick in zip(STYLES, picks, strict=True)}
        style: dict[str, Any] = {name: label for name, label in labels.items() if name in config.styles}
        if "rate" in style:
            style["speed"] = round(RATES[style["rate"]] * (1 + float(spread)), 4)
        drawn.append(style)
    return drawn


def registered(speaker: Speaker, style: dict[str, Any]) -> Speaker:
    """The speaker in the register of a style."""
    return dataclasses.replace(speaker, pitch=speaker.pitch * REGISTERS[style.get("register", "normal")])


def levelled(speech: Speech, style: dict[str, Any]) -> Speech:
    """The speech at the level of a style, as it is where the style has none."""
    if "energy" not in style:
        return speech
    level = 10 ** (LEVELS_DB[style["energy"]] / 20)
    now = float(np.sqrt(np.mean(np.square(speech.samples, dtype=np.float64))))
    return dataclasses.replace(speech, samples=speech.samples * np.float32(level / now))
