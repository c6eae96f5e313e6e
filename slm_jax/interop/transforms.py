"""How arrays as PyTorch lays them out become ours, and back: one object holds both directions.

`targets` are the shapes of one layer: the engine takes stacked leaves apart before it asks. Only NumPy, and no weight
is looked at before `source_shapes` has been compared with what the file promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import numpy as np

from slm_jax.core.errors import UserError

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


@runtime_checkable
class Transform(Protocol):
    """Some source arrays <-> some target arrays, in the order of a rule's `sources` and `targets`."""

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        """What the sources must look like for these targets."""

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        """Sources of `source_shapes(targets)` as targets."""

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        """The sources that `forward` turns into these targets."""


@dataclass(frozen=True)
class Same:
    """Nothing changes."""

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return list(sources)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return list(targets)


@dataclass(frozen=True)
class Flat:
    """`[out]` <-> `[*out]`: the bias of a map onto several axes."""

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(prod(shape),) for shape in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return [source.reshape(shape) for source, shape in zip(sources, targets, strict=True)]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target.reshape(-1) for target in targets]


@dataclass(frozen=True)
class Reshape:
    """The source has the shape `source` (one entry may be -1), the target its own."""

    source: Shape

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        known = -prod(self.source) if -1 in self.source else 1
        return [tuple(prod(shape) // known if n == -1 else n for n in self.source) for shape in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return [source.reshape(shape) for source, shape in zip(sources, targets, strict=True)]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target.reshape(self.source) for target in targets]


@dataclass(frozen=True)
class Dense:
    """`[out, in]` <-> the kernel `[*in, *out]` whose first `inputs` axes are inputs.

    `transposed=False` for sources stored as `[in, out]` (GPT-2's Conv1D).
    """

    inputs: int = 1
    transposed: bool = True

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        flat: list[Shape] = [(prod(shape[: self.inputs]), prod(shape[self.inputs :])) for shape in targets]
        return [shape[::-1] for shape in flat] if self.transposed else flat

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        turned = [source.T if self.transposed else source for source in sources]
        return [source.reshape(shape) for source, shape in zip(turned, targets, strict=True)]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        flat = [target.reshape(prod(target.shape[: self.inputs]), -1) for target in targets]
        return [target.T for target in flat] if self.transposed else flat


@dataclass(frozen=True)
class Conv:
    """`[out, in, taps]` <-> `[taps, in, out]`, or `[in, out, taps]` <-> `[taps, in, out]` of a transposed one.

    Holds for a weight norm's length as well, whose axes are the same ones with size 1.
    """

    transposed: bool = False

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(i, o, k) if self.transposed else (o, i, k) for k, i, o in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        axes = (2, 0, 1) if self.transposed else (2, 1, 0)
        return [source.transpose(axes) for source in sources]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        axes = (1, 2, 0) if self.transposed else (2, 1, 0)
        return [target.transpose(axes) for target in targets]


@dataclass(frozen=True)
class Pointwise:
    """`[out, in, 1]` of a convolution of one tap <-> the kernel `[in, out]` of a dense map; over so many `axes`."""

    axes: int = 1

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(out, inputs, *[1] * self.axes) for inputs, out in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return [source.reshape(source.shape[:2]).T for source in sources]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target.T.reshape(*target.shape[::-1], *[1] * self.axes) for target in targets]


@dataclass(frozen=True)
class Conv2d:
    """`[out, in, rows, columns]` <-> `[rows, columns, in, out]`."""

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(out, inputs, rows, columns) for rows, columns, inputs, out in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return [source.transpose(2, 3, 1, 0) for source in sources]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target.transpose(3, 2, 0, 1) for target in targets]


@dataclass(frozen=True)
class BatchNorm:
    """Weight, bias, mean and variance of a batch norm whose statistics are settled -> a factor and an offset.

    Back it is written as a batch norm of mean 0 and variance 1: the same function, not the same four numbers.
    """

    epsilon: float = 1e-5

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [tuple(targets[0])] * 4

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        weight, bias, mean, variance = (np.asarray(source, np.float32) for source in sources)
        factor = weight / np.sqrt(variance + np.float32(self.epsilon))
        return [factor, bias - mean * factor]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        factor, offset = targets
        return [factor, offset, np.zeros_like(factor), np.full_like(factor, 1.0 - self.epsilon)]


@dataclass(frozen=True)
class Patches:
    """`[out, 1, rows, columns]` of a two-dimensional convolution over its own stride <-> `[rows * columns, out]`."""

    edge: int

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [(out, 1, self.edge, inputs // self.edge) for inputs, out in targets]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return [source.reshape(source.shape[0], -1).T for source in sources]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target.T.reshape(target.shape[1], 1, self.edge, -1) for target in targets]


@dataclass(frozen=True)
class Copies:
    """Several sources that hold the same array <-> one target; they are written all, and must agree on reading."""

    count: int

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in targets for _ in range(self.count)]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        if not all(np.array_equal(source, sources[0]) for source in sources):
            raise UserError(f"{self.count} weights that should be copies of one differ: this model shares them")
        return [sources[0]]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [target for target in targets for _ in range(self.count)]


@dataclass(frozen=True)
class Fused:
    """One source <-> several targets that lie side by side along `axis` of the source (query, key and value)."""

    inner: Transform
    axis: int = 0

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        parts = self.inner.source_shapes(targets)
        whole = list(parts[0])
        whole[self.axis] = sum(part[self.axis] for part in parts)
        return [tuple(whole)]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        widths = [part[self.axis] for part in self.inner.source_shapes(targets)]
        return self.inner.forward(np.split(sources[0], np.cumsum(widths)[:-1], self.axis), targets)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [np.concatenate(self.inner.backward(targets), self.axis)]


@dataclass(frozen=True)
class Rotary:
    """Query and key maps whose rows pair channels 2i and 2i + 1 <-> ours, which pair i and i + C/2.

    The target's last two axes are `[H, C]`; `inner` does the rest.
    """

    inner: Transform

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return self.inner.source_shapes(targets)

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        split = [_swap_pairs(s, (t[-2], t[-1] // 2, 2)) for s, t in zip(sources, targets, strict=True)]
        return self.inner.forward(split, targets)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        sources = zip(self.inner.backward(targets), targets, strict=True)
        return [_swap_pairs(s, (t.shape[-2], 2, t.shape[-1] // 2)) for s, t in sources]


@dataclass(frozen=True)
class Turned:
    """A source that lies the other way round than `inner` reads it: `[in, out]` where that has `[out, in]`."""

    inner: Transform

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [shape[::-1] for shape in self.inner.source_shapes(targets)]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return self.inner.forward([source.T for source in sources], targets)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [source.T for source in self.inner.backward(targets)]


@dataclass(frozen=True)
class Each:
    """As many sources as targets, each pair in a transform of its own."""

    inner: tuple[Transform, ...]

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return [one.source_shapes([target])[0] for one, target in zip(self.inner, targets, strict=True)]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        pairs = zip(self.inner, sources, targets, strict=True)
        return [one.forward([source], [target])[0] for one, source, target in pairs]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [one.backward([target])[0] for one, target in zip(self.inner, targets, strict=True)]


@dataclass(frozen=True)
class Folded:
    """Weight norm (length g, direction v) -> one plain kernel through `inner`; `kept`: PyTorch's `dim`.

    One way: what a folded kernel was made of is lost, so a table needs a rule for the plain weight in front of this.
    """

    inner: Transform
    kept: int = 0

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        (direction,) = self.inner.source_shapes(targets)
        return [_kept_only(direction, self.kept), direction]

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        length, direction = (np.asarray(source, np.float32) for source in sources)
        return self.inner.forward([length * direction / _norm(direction, self.kept)], targets)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        raise UserError("a folded kernel can't be written as a weight norm: write the plain weight")


@dataclass(frozen=True)
class Unfolded:
    """One plain weight -> our weight norm (length g, direction v) through `inner`, and back to the plain weight."""

    inner: Transform
    kept: int = 0

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return self.inner.source_shapes(targets[1:])

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        weight = np.asarray(sources[0], np.float32)
        return [
            *self.inner.forward([_norm(weight, self.kept)], targets[:1]),
            *self.inner.forward([weight], targets[1:]),
        ]

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        (length,), (direction,) = self.inner.backward(targets[:1]), self.inner.backward(targets[1:])
        return [length * direction / _norm(direction, self.kept)]


@dataclass(frozen=True)
class Rolled:
    """The first `first` entries along `axis` of each source come last in ours, as `inner` then lays it out."""

    inner: Transform
    first: int
    axis: int = 1

    def source_shapes(self, targets: Sequence[Shape]) -> list[Shape]:
        return self.inner.source_shapes(targets)

    def forward(self, sources: Arrays, targets: Sequence[Shape]) -> list[np.ndarray]:
        return self.inner.forward([np.roll(source, -self.first, self.axis) for source in sources], targets)

    def backward(self, targets: Arrays) -> list[np.ndarray]:
        return [np.roll(source, self.first, self.axis) for source in self.inner.backward(targets)]


SAME = Same()
FLAT = Flat()


def _swap_pairs(source: np.ndarray, split: Shape) -> np.ndarray:
    """Rows split as (H, a, b) in the order (H, b, a)."""
    rest = source.shape[1:]
    return source.reshape(*split, *rest).swapaxes(1, 2).reshape(-1, *rest)


def _kept_only(shape: Shape, kept: int) -> Shape:
    return tuple(n if axis == kept else 1 for axis, n in enumerate(shape))


def _norm(weight: np.ndarray, kept: int) -> np.ndarray:
    axes = tuple(axis for axis in range(weight.ndim) if axis != kept)
    return np.sqrt(np.square(weight.astype(np.float32)).sum(axes, keepdims=True))
