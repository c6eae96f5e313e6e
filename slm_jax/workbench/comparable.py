"""What `parity` asks of a kind of model: inputs to try, what passes through it, and a weight whose move must show.

A new kind is one file `workbench.comparable_NAME` that gives a `Comparable`, and its line in `workbench.comparables`.
Its PyTorch side is a builder of `interop.references`, which gives the same places by the same names.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

Inputs = dict[str, np.ndarray]
Found = dict[str, tuple[jax.Array, jax.Array]]
"""Name of a place -> values [B, steps, ...] and which steps are real [B, steps]."""


@dataclass(frozen=True)
class Case:
    """One run of both sides.

    `inputs`: `mask` [B, N] says which entries are real; an input with another length has a mask of its own,
    `NAME_mask` (`inputs_alone`). `alone`: the reference reads each row by itself, cut to its real entries, which is the
    truth about a padded row. `changes`: fields of our config in this case, where the reference goes about it otherwise.
    """

    name: str
    inputs: Inputs
    alone: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparable:
    """One kind of model.

    `cases(config, rng, tiny)`: whole rows first, then padded ones; `tiny`: the weights are drawn, not published.
    `collect(model, params, inputs)`: what passes through ours; it is jitted. `moved`: end of the path of the weight
    that the negative control moves, in the middle layer where there are several.
    """

    cases: Callable[[Any, np.random.Generator, bool], Iterable[Case]]
    collect: Callable[[Any, Any, Mapping[str, jax.Array]], Found]
    moved: str


def inputs_alone(inputs: Inputs) -> Iterable[dict[str, np.ndarray | None]]:
    """Each row by itself, without its padding; masks are None then."""
    masks = {name for name in inputs if name.endswith("mask")}
    for row in range(len(inputs["mask"])):
        cut: dict[str, np.ndarray | None] = dict.fromkeys(masks)
        for name in inputs.keys() - masks:
            real = inputs.get(f"{name}_mask", inputs["mask"])[row]
            value = inputs[name][row : row + 1]
            cut[name] = value[:, real] if value.ndim > 1 else value  # a speaker has no steps
        yield cut


def noise(rng: np.random.Generator, lengths: list[int]) -> Inputs:
    """Samples of these lengths and their mask."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    samples = rng.standard_normal(mask.shape).astype(np.float32)
    return {"samples": np.where(mask, samples, 0.0).astype(np.float32), "mask": mask}
