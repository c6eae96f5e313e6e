"""Forced alignment: which frames say which label, by the best path of CTC (Graves et al. 2006; Viterbi 1967)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.token_compression.ctc_states import (
    IMPOSSIBLE,
    came_from,
    end_states,
    frames_needed,
    picked,
    start_states,
    with_blanks,
)


class Alignment(NamedTuple):
    """`spans`: first and one-past-last frame of every label, (0, 0) where padded; `score`: ln p of the best path."""

    spans: Int[Array, "B L 2"]
    score: Float[Array, "B"]


def forced_alignment(
    log_probs: Float[Array, "B T V"],
    frame_mask: Bool[Array, "B T"],
    labels: Int[Array, "B L"],
    label_mask: Bool[Array, "B L"],
    blank: int = 0,
) -> Alignment:
    """The most likely path of CTC that says the labels of each right-padded row.

    A label's span is the frames on which the path emits it; blanks belong to no span. A row whose labels do not fit
    into its frames, or that has no path of a probability above 0, gets the score -inf and spans (0, 0). What stands in
    padding has no effect.
    """
    symbols, may_skip = with_blanks(labels, label_mask, blank)
    log_probs = jnp.where(frame_mask[..., None], log_probs, 0.0).astype(jnp.float32)
    before = start_states(*symbols.shape)

    def forward(best: Float[Array, "B S"], frame: tuple[Array, Array]) -> tuple[Array, Array]:
        emitted, real = frame
        ways = came_from(best, may_skip)
        scores = jnp.maximum(jnp.take_along_axis(emitted, symbols, axis=1), IMPOSSIBLE)
        steps = jnp.where(real[:, None], ways.argmax(0), 0).astype(jnp.int8)
        return jnp.where(real[:, None], ways.max(0) + scores, best), steps

    best, steps = jax.lax.scan(forward, before, (log_probs.swapaxes(0, 1), frame_mask.T))
    blank_end, label_end = end_states(label_mask)
    in_label = picked(best, label_end) > picked(best, blank_end)
    score = jnp.maximum(picked(best, label_end), picked(best, blank_end))
    possible = (frames_needed(labels, label_mask) <= frame_mask.sum(1)) & ~(score < IMPOSSIBLE / 2)
    path = _path_back(steps, jnp.where(in_label, label_end, blank_end))
    spans = _spans(path, frame_mask & possible[:, None], labels.shape[1])
    return Alignment(spans, jnp.where(possible, score, -jnp.inf))


def _path_back(steps: Int[Array, "T B S"], last: Int[Array, "B"]) -> Int[Array, "B T"]:
    """The state of every frame, from the steps that led to each and the last state."""

    def backward(state: Int[Array, "B"], step: Int[Array, "B S"]) -> tuple[Array, Array]:
        return state - jnp.take_along_axis(step, state[:, None], axis=1)[:, 0], state

    _, path = jax.lax.scan(backward, last, steps, reverse=True)
    return path.T


def _spans(path: Int[Array, "B T"], real: Bool[Array, "B T"], labels: int) -> Int[Array, "B L 2"]:
    """First and one-past-last frame in each label's state."""
    rows, frames = jnp.arange(path.shape[0])[:, None], jnp.arange(path.shape[1])
    label = jnp.where(real & (path % 2 == 1), path // 2, labels)  # out of range: the scatters drop blanks
    first = jnp.full((path.shape[0], labels), path.shape[1]).at[rows, label].min(frames, mode="drop")
    end = jnp.zeros((path.shape[0], labels), first.dtype).at[rows, label].max(frames + 1, mode="drop")
    return jnp.stack([jnp.where(end > 0, first, 0), end], axis=-1)
