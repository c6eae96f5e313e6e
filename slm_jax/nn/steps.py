"""Layers that run whole and step by step (`core.contracts.Steppable`), one after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Bool

from slm_jax.core.types import Frames
from slm_jax.nn.conv import zero_padded


class Elementwise:
    """A function of every number alone, as a layer: there is nothing to remember."""

    stride, latency, receptive_field = 1, 0, 1

    def __init__(self, function: Callable[[jax.Array], jax.Array]) -> None:
        self.function = function

    def __call__(self, frames: Frames) -> Frames:
        return Frames(zero_padded(self.function(frames.values), frames.mask), frames.mask)

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple:
        """Nothing."""
        return ()

    def step(self, frames: Frames, state: tuple) -> tuple[Frames, tuple]:
        """The same as whole."""
        return self(frames), state

    def reset(self, state: tuple, rows: Bool[Array, "B"]) -> tuple:
        """Nothing."""
        return state


def run(layers: Sequence[Any], frames: Frames) -> Frames:
    """Frames through all layers."""
    for layer in layers:
        frames = layer(frames)
    return frames


def initial_states(layers: Sequence[Any], batch: int, capacity: int = 0, dtype: Any = None) -> tuple:
    """The state of every layer before the first frame."""
    return tuple(layer.initial_state(batch, capacity, dtype) for layer in layers)


def step(layers: Sequence[Any], frames: Frames, states: tuple) -> tuple[Frames, tuple]:
    """The next frames through all layers."""
    after = []
    for layer, state in zip(layers, states, strict=True):
        frames, state = layer.step(frames, state)
        after.append(state)
    return frames, tuple(after)


def reset(layers: Sequence[Any], states: tuple, rows: Bool[Array, "B"]) -> tuple:
    """The states with `rows` back at the beginning."""
    return tuple(layer.reset(state, rows) for layer, state in zip(layers, states, strict=True))


class Layers(nn.Module):
    """A module whose `setup` fills `layers`, run one after the other on whole rows."""

    def __call__(self, frames: Frames) -> Frames:
        return run(self.layers, frames)


class Steps(Layers):
    """Layers that also run step by step."""

    latency = 0

    def initial_state(self, batch: int, capacity: int = 0, dtype: Any = None) -> tuple:
        """That of all layers; `apply` it, since layers exist only there."""
        return initial_states(self.layers, batch, capacity, dtype)

    def step(self, frames: Frames, state: tuple) -> tuple[Frames, tuple]:
        """The next frames."""
        return step(self.layers, frames, state)

    def reset(self, state: tuple, rows: Bool[Array, "B"]) -> tuple:
        """The state with `rows` back at the beginning."""
        return reset(self.layers, state, rows)
