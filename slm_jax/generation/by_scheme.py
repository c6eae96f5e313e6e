"""Codes continued under any scheme: its table says what is forced, what stays empty and what the model draws."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from slm_jax.core.errors import require
from slm_jax.core.types import EMPTY, Codes, Frames, Streams
from slm_jax.generation.advance import stream_sizes
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.table import Scheme


def continue_codes(
    model: Any,
    params: Any,
    prompts: Codes,
    frames: int,
    scheme: Scheme,
    key: Key[Array, ""] | Key[Array, "B"],
    config: SamplingConfig,
    *,
    context: Frames | None = None,
) -> Codes:
    """The codes of every row up to frame `frames`, those of its prompt first (which may be empty).

    Every sequence begins with a step whose entries are all empty. Steps that the prompts of all rows fill are read at
    once. `config.max_new` counts for nothing here: the scheme knows how many steps there are. Raises `UserError` for
    codes outside the model's streams, for prompts that reach beyond `frames`, and for ids that end a row.
    """
    sizes = stream_sizes(model)
    told = told_steps(scheme, prompts, frames)
    require(told.shape[2] == len(sizes), "codebooks", told.shape[2], f"the model has {len(sizes)} streams")
    told = filled_in(model, params, told, key, config, context=context)
    ids = jnp.asarray(np.maximum(told, 0))
    filled = jnp.broadcast_to(jnp.asarray(scheme.table(frames, len(sizes))[..., 0] >= 0), ids.shape)
    return scheme.restore(Streams(ids, filled, filled.astype(jnp.float32)))


def filled_in(
    model: Any,
    params: Any,
    told: Int[np.ndarray, "B S K1"],
    key: Key[Array, ""] | Key[Array, "B"],
    config: SamplingConfig,
    *,
    context: Frames | None = None,
) -> Int[np.ndarray, "B S K1"]:
    """Steps with an id, or `EMPTY`, wherever they were told -1: drawn step by step, given all that stands before.

    Before them the model reads a step that is empty. Steps that are told in full in all rows are read at once.
    `config.max_new` counts for nothing. Raises `UserError` for ids that end a row: all rows end with the last step.
    """
    require(not config.all_ends, "ends", config.all_ends, "all rows end with their last step")
    given = int(np.argmax(np.append((told == -1).any((0, 2)), True)))  # steps before the first that draws
    if given == told.shape[1]:
        return told
    read, forced = told[:, :given], told[:, given:]
    read = np.pad(read, ((0, 0), (1, 0), (0, 0)), constant_values=EMPTY)
    config = config.replace(max_new=forced.shape[1])
    made = generate(model, params, read, np.ones(read.shape[:2], bool), key, config, forced=forced, context=context)
    drawn = np.concatenate([told[:, :given], np.asarray(made.ids)], 1)
    return np.where(told == -1, drawn, told)


def told_steps(scheme: Scheme, prompts: Codes, frames: int) -> Int[np.ndarray, "B S K"]:
    """What `generate` is told of every step: prompt codes, `EMPTY` where the scheme has no code, -1 to be drawn."""
    ids, lengths = np.asarray(prompts.ids), np.asarray(prompts.mask).sum(1)
    require(int(lengths.max(initial=0)) <= frames, "frames", frames, f"prompts have {lengths.tolist()}")
    table = scheme.table(frames, ids.shape[2])
    time, codebook = table[..., 0], table[..., 1]
    padded = np.pad(ids, ((0, 0), (0, max(0, frames - ids.shape[1])), (0, 0)))
    known = (time >= 0) & (time < lengths[:, None, None])
    told = np.where(known, padded[:, np.maximum(time, 0), codebook], -1)
    return np.where(time < 0, EMPTY, told).astype(np.int32)
