"""How kernels of several steps, as depth transformers have them, become ours and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slm_jax.interop.transforms import Arrays, Shape, Transform


@dataclass(frozen=True)
class Steps:
    """Kernels of several steps, each as `inner` has it, <-> targets with the steps on axis 0.

    "stacked": sources `[J, ...]`; "joined": those of all steps one after the other along axis 0; "apart": as many
    sources as there are steps.
    """

    inner: Transform
    form: str = "stacked"

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        steps, one = targets[0][0], self.inner.source_shapes([shape[1:] for shape in targets])
        if self.form == "apart":
            return one * steps
        return [(steps, *s) if self.form == "stacked" else (steps * s[0], *s[1:]) for s in one]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        steps, shapes = targets[0][0], [shape[1:] for shape in targets]
        if self.form == "apart":
            by_step = [[source] for source in sources]
        else:
            cut = [np.split(source, steps) if self.form == "joined" else source for source in sources]
            by_step = [list(step) for step in zip(*cut, strict=True)]
        made = [self.inner.forward(step, shapes) for step in by_step]
        return [np.stack(parts) for parts in zip(*made, strict=True)]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        made = [self.inner.backward(step) for step in zip(*targets, strict=True)]
        if self.form == "apart":
            return [source for step in made for source in step]
        together = np.stack if self.form == "stacked" else np.concatenate
        return [together(parts) for parts in zip(*made, strict=True)]


@dataclass(frozen=True)
class Spread:
    """One source `[J, ...]` <-> J targets, each as `inner` has it."""

    inner: Transform

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(len(targets), *self.inner.source_shapes(targets[:1])[0])]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        pairs = zip(sources[0], targets, strict=True)
        return [self.inner.forward([source], [target])[0] for source, target in pairs]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [np.stack([self.inner.backward([target])[0] for target in targets])]
