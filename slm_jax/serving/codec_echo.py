"""A codec as a session: everybody hears what it makes of their voice while they speak."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from slm_jax.assemblies.codec import CodecConfig
from slm_jax.core.contracts import Spoken
from slm_jax.core.errors import require
from slm_jax.serving.codec import CodecSession

FRAME_S = 0.08
"""What a push is about as long as: a frame of Mimi, six of EnCodec."""


class CodecEcho:
    """`core.contracts.Session` over `CodecSession`: sound in, the same from its codes out.

    A codec that waits before it begins, or whose sound is late, is heard that much later and without a gap.
    """

    def __init__(
        self, config: CodecConfig, variables: Any, batch: int, books: int | None = None, frame_s: float = FRAME_S
    ) -> None:
        """Opens `batch` new rows; `frame_s`: about how many seconds a push has."""
        require(batch >= 1, "batch", batch, "at least one row")
        self._codec = CodecSession(config, variables, batch, books)
        self._frames = max(1, round(frame_s * config.frames_per_second))
        # A row that begins is fed frame by frame; where it has to, so are all, or others would feel it in the last bit
        self._pieces = 1 if config.startup == 1 else self._frames
        self.batch, self.rate_hz, self.hop = batch, config.rate_hz, config.hop * self._frames
        self._ready = [np.zeros(0, np.float32)] * batch

    def push(self, samples: Float[np.ndarray, "B N"], active: Bool[np.ndarray, "B"]) -> Spoken:
        """The next `hop` samples of every active row. Raises `UserError` for another shape and for what is not finite;
        the session goes on."""
        samples = np.asarray(samples, np.float32)
        require(samples.shape == (self.batch, self.hop), "samples", samples.shape, f"({self.batch}, {self.hop})")
        for part in np.split(samples, self._pieces, axis=1):
            self._decode(self._codec.encode(part, active))
        silence = np.zeros(self.hop, np.float32)
        said = [self._next(row) if going else silence for row, going in enumerate(active)]
        return Spoken(np.stack(said), ("",) * self.batch)

    def reset(self, rows: Bool[np.ndarray, "B"]) -> None:
        """Let these rows begin anew."""
        self._codec.reset(rows)
        self._ready = [kept[:0] if anew else kept for kept, anew in zip(self._ready, rows, strict=True)]

    def _decode(self, found: list[np.ndarray]) -> None:
        """Keeps the sound of these codes; rows that begin have several frames at once, which go one by one."""
        count = max(map(len, found))
        size = count if self._pieces == 1 else 1
        for start in range(0, count, size):
            has = np.array([len(codes) > start for codes in found])
            nothing = np.zeros((size, found[0].shape[1]), found[0].dtype)
            ids = [codes[start : start + size] if go else nothing for codes, go in zip(found, has, strict=True)]
            made = self._codec.decode(np.stack(ids), has)
            self._ready = [np.concatenate(pair) for pair in zip(self._ready, made, strict=True)]

    def _next(self, row: int) -> Float[np.ndarray, "N"]:
        """One push of what is ready; silence where there is less."""
        kept = self._ready[row]
        if len(kept) < self.hop:
            return np.zeros(self.hop, np.float32)
        self._ready[row] = kept[self.hop :]
        return kept[: self.hop]
