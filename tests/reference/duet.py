"""A voice that hums along: three streams of levels, 80 ms each, the smallest decoder over them, and its sessions.

Streams: how loud and how high the own voice is, and how loud the other one is. The own ones are drawn, the other is
what the microphone hears. No codec, no units: the voice is a sine.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.data.passes import float_samples
from slm_jax.data.pipeline import make_batches
from slm_jax.data.shapes import stacked_shapes
from slm_jax.generation.advance import decoding
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.objectives.streams import NextStreamsConfig
from slm_jax.schemes.parallel import Parallel
from slm_jax.sequence_models.multi_stream import MultiStreamConfig
from slm_jax.serving.session import Session
from slm_jax.training.gradient_stage import GradientStageConfig, Learner, Outline, Plan, host_share
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext
from slm_jax.training.step import Player

LEVELS = 12
FRAME_S, F0_HOP_S = 0.08, 0.0125
QUIET_DB, STEP_DB = -60.0, 5.0
LOWEST_HZ = 70.0
USER, OWN = 0, 1
"""Channels of a dialogue."""


def loudness_level(samples: np.ndarray) -> np.ndarray:
    """Level 0 to 11 of the RMS of the last axis."""
    db = 20 * np.log10(np.sqrt(np.square(samples).mean(-1)) + 1e-6)
    return np.clip((db - QUIET_DB) / STEP_DB, 0, LEVELS - 1).astype(np.int32)


def pitch_level(f0_hz: np.ndarray) -> np.ndarray:
    """Level 0 (nothing voiced) to 11, fifths of an octave, of the mean over the voiced part of the last axis."""
    voiced = f0_hz > 0
    hz = f0_hz.sum(-1) / np.maximum(voiced.sum(-1), 1)
    level = 1 + 5 * np.log2(np.maximum(hz, LOWEST_HZ) / LOWEST_HZ)
    return np.where(voiced.any(-1), np.clip(level, 1, LEVELS - 1), 0).astype(np.int32)


def hz_of(level: np.ndarray) -> np.ndarray:
    """The middle of a level of pitch."""
    return LOWEST_HZ * 2 ** ((level - 0.5) / 5)


def amplitude_of(level: np.ndarray) -> np.ndarray:
    """The amplitude of a sine as loud as a level."""
    return np.sqrt(2) * 10 ** ((QUIET_DB + (level + 0.5) * STEP_DB) / 20)


def streams(item: dict[str, Any], rate_hz: int) -> np.ndarray:
    """Levels [T, 3] of a dialogue in two channels."""
    hop, f0_hop = round(FRAME_S * rate_hz), FRAME_S / F0_HOP_S
    samples = float_samples(item["samples"])
    frames = len(samples) // hop
    blocks = samples[: frames * hop].reshape(frames, hop, 2)
    f0 = [item["f0_hz"][round(t * f0_hop) : round((t + 1) * f0_hop), OWN] for t in range(frames)]
    pitch = np.array([pitch_level(part) for part in f0], np.int32)
    return np.stack([loudness_level(blocks[..., OWN]), pitch, loudness_level(blocks[..., USER])], axis=1)


class DuetStageConfig(GradientStageConfig):
    """Trains `model` on `frames` steps of dialogues in two channels."""

    model: MultiStreamConfig
    objective: NextStreamsConfig
    frames: int

    def plan(self, folder: StageFolder, context: StageContext) -> Plan:
        require(context.corpus.channels == 2, "channels of the corpus", context.corpus.channels, "one per voice: 2")
        source, share = context.source("train", ("dialogue",)), host_share(self.train.mesh)
        batches = make_batches(source, self.example(context.corpus.rate_hz), self.batches, **share)
        return Plan(*self._learner(), batches=batches)

    def outline(self, run: RunConfig) -> Outline:
        tokens = self.batches.batch * self.frames
        row = {"ids": np.zeros((self.frames, 3), np.int32), "mask": np.ones(self.frames, bool)}
        shapes = stacked_shapes(row, self.batches.batch)
        return Outline(*self._learner(), batch=shapes, tokens=tokens, speech_s=tokens * FRAME_S)

    def example(self, rate_hz: int) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A dialogue, or as much of it as there is room for from a random frame on, to `ids` [S, 3] and `mask` [S]."""

        def make(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            levels, _ = Parallel().arrange_row(streams(item, rate_hz))
            start = int(rng.integers(max(0, len(levels) - self.frames) + 1))
            ids = levels[start : start + self.frames]
            missing = self.frames - len(ids)
            return {"ids": np.pad(ids, ((0, missing), (0, 0))), "mask": np.arange(self.frames) < len(ids)}

        return make

    def _learner(self) -> Learner:
        model = self.model.make()
        player = Player(name="duet", objective=self.objective.make(model), optimizer=self.optimizer)
        return lambda key: model.init(key, jnp.zeros((1, 2, 3), jnp.int32)), [player]


class Pushed(NamedTuple):
    """What came out of one push, as in `core.contracts.Spoken`: the own voice [B, hop] and no words; and the levels of
    all streams [B, 3], -1 where a row rested."""

    samples: np.ndarray
    texts: tuple[str, ...]
    levels: np.ndarray


class DuetSession:
    """Rows of microphones and voices: `push` takes 80 ms of every active row and gives 80 ms of its voice."""

    def __init__(
        self, model: Any, variables: Any, batch: int, rate_hz: int, sampling: SamplingConfig, seed: int
    ) -> None:
        self.batch, self.rate_hz, self.hop = batch, rate_hz, round(FRAME_S * rate_hz)
        key, start = jax.random.key(seed), (0, 0, 0)
        steps = decoding(model, sampling)
        self._tokens = Session(steps, variables, batch, None, key, start=start)
        self._phase = np.zeros(batch)

    def push(self, samples: np.ndarray, active: np.ndarray) -> Pushed:
        """One step; raises `UserError` for another shape. A row that rests is silent and does not change."""
        samples = np.asarray(samples)
        require(samples.shape == (self.batch, self.hop), "samples", samples.shape, f"[{self.batch}, {self.hop}]")
        free = np.full((self.batch, 2), -1, np.int32)
        told = np.concatenate([free, loudness_level(samples)[:, None]], axis=1)
        levels = np.asarray(self._tokens.push(told, active).ids)
        return Pushed(self._voice(levels), ("",) * self.batch, levels)

    def reset(self, rows: np.ndarray) -> None:
        """The given rows as new."""
        self._tokens.reset(rows)
        self._phase = np.where(rows, 0.0, self._phase)

    def _voice(self, levels: np.ndarray) -> np.ndarray:
        """A sine of each row's loudness and pitch that goes on where it stopped."""
        sounds = levels[:, 1] > 0
        turns = hz_of(levels[:, 1])[:, None] * np.arange(1, self.hop + 1) / self.rate_hz
        phase = self._phase[:, None] + np.where(sounds[:, None], turns, 0.0)
        self._phase = phase[:, -1] % 1.0
        loud = np.where(sounds, amplitude_of(levels[:, 0]), 0.0)[:, None]
        return (loud * np.sin(2 * np.pi * phase)).astype(np.float32)
