"""Features of a pass in host memory, each once: what units are fitted on."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.data.passes import one_behind
from slm_jax.quantizers.postprocess import Postprocess, treated

Rows = dict[str, Any]


class FrameSample:
    """The real frames of all batches end to end in one array of `most` rows, and the masks that lay them out again.

    Only one batch at a time is on a device. `treat` works in place, so that no second array of this size is made.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: np.ndarray | None = None
        self._batches: list[tuple[Rows, np.ndarray, slice]] = []
        self._count = 0

    def fill(self, batches: Iterable[tuple[Rows, Frames]]) -> "FrameSample":
        """Add the batches; raises `UserError` when they hold more than `most` frames."""
        for rows, frames in one_behind(batches):
            mask = np.asarray(frames.mask)
            real = np.asarray(frames.values)[mask]
            if self._values is None:
                self._values = np.empty((self._most, real.shape[1]), np.float32)
            place = slice(self._count, self._count + len(real))
            require(place.stop <= self._most, "frames", place.stop, f"a sample of at most {self._most}")
            self._values[place] = real
            self._batches.append((rows, mask, place))
            self._count = place.stop
        return self

    @property
    def values(self) -> Float[np.ndarray, "T D"]:
        """All frames."""
        require(self._values is not None, "frames", 0, "the sample is empty")
        assert self._values is not None
        return self._values[: self._count]

    def treat(self, post: Postprocess) -> None:
        """Every frame becomes what `post` makes of it in its utterance."""
        values = self.values
        made = ((mask, place, treated(post, self._laid_out(mask, place)).values) for _, mask, place in self._batches)
        for mask, place, frames in one_behind(made):
            values[place] = np.asarray(frames)[mask]

    def _laid_out(self, mask: np.ndarray, place: slice) -> Frames:
        """A batch as it came, zero where masked."""
        frames = np.zeros((*mask.shape, self.values.shape[1]), np.float32)
        frames[mask] = self.values[place]
        return Frames(jnp.asarray(frames), jnp.asarray(mask))

    def by_row(self, found: Shaped[np.ndarray, "T *S"]) -> Iterator[tuple[Rows, list[np.ndarray]]]:
        """What was found for every frame, by batches as they came: an array for each row of it."""
        for rows, mask, place in self._batches:
            yield rows, np.split(found[place], np.cumsum(mask.sum(1))[:-1])
