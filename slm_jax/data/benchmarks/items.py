"""One question of a benchmark."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.core.messages import Conversation, Message, Speech, Text

Fields = dict[str, Any]


class BenchmarkItem(NamedTuple):
    """What is heard, in order, and what is written after it ("" for nothing); `fields`: all else that the benchmark
    says of it, as JSON, which goes into the predictions as it came."""

    id: str
    clips: tuple[Speech, ...]
    words: str
    fields: Fields

    def conversation(self) -> Conversation:
        """The question as a system is asked it."""
        parts = (*self.clips, *((Text(self.words),) if self.words else ()))
        if not parts:
            raise UserError(f"item {self.id!r} has neither speech nor words")
        return (Message("user", parts),)


def require_all(items: Sequence[BenchmarkItem], responses: Sequence[str]) -> None:
    """Raise `UserError` unless there is a response to every item."""
    if len(items) != len(responses):
        raise UserError(f"there are {len(responses)} responses to {len(items)} items: one for each, in their order")


def clip(samples: np.ndarray, rate_hz: int) -> Speech:
    """Samples `[N]` or `[N, channels]` as one clip; channels are averaged."""
    return Speech((samples if samples.ndim == 1 else samples.mean(1)).astype(np.float32), rate_hz)
