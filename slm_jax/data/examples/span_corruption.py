"""Texts with hidden spans, which an encoder-decoder writes: T5's pre-training (Raffel et al. 2020, section 3.1.4)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require

Encode = Callable[[str], Sequence[int]]


class SpanCorruptionConfig(Config):
    """A text of up to `length` entries, `eos` counted, of which about `share` is hidden in spans of `mean_span` ids.

    Sentinel i is id `first_sentinel` + i. What is read: the text with one sentinel for each hidden span. What is
    written: each sentinel with the ids it stands for (the figure of the paper ends with one more, here `eos` does).
    A longer text is cut to a random window. In a share `shuffled` of the rows nothing is hidden: the ids are read in
    any order and all of them written again, from which a model learns to find its place in what it reads; a few
    hundred short texts, which can be known by heart, do not teach that.
    """

    length: int
    first_sentinel: int
    eos: int
    start: int = 0
    sentinels: int = 100
    share: float = 0.15
    mean_span: float = 3.0
    shuffled: float = 0.0

    def __post_init__(self) -> None:
        require(self.length >= 3, "length", self.length, "at least 3: two ids and eos")
        require(0.0 <= self.shuffled <= 1.0, "shuffled", self.shuffled, "must lie in [0, 1]")
        require(0.0 < self.share < 1.0, "share", self.share, "must lie between 0 and 1")
        require(self.mean_span >= 1.0, "mean_span", self.mean_span, "at least 1 id")
        _, spans = self.hidden(self.length - 1)
        require(self.sentinels >= spans, "sentinels", self.sentinels, f"{spans} spans may be hidden in a row")

    def hidden(self, length: int) -> tuple[int, int]:
        """Of so many ids how many are hidden, and in how many spans; of fewer than two none."""
        if length < 2:
            return 0, 0
        ids = min(max(round(length * self.share), 1), length - 1)
        return ids, min(max(round(ids / self.mean_span), 1), length - ids)

    @property
    def written(self) -> int:
        """Entries of the longest target: no longer text has more."""
        ids, spans = self.hidden(self.length - 1)
        return max(ids + spans + 1, self.length if self.shuffled else 0)

    def make(self, encode: Encode) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `text` to one example; `encode` gives its ids.

        `ids` `[length]` with `mask`: what is read. `decoder_ids` `[written]` and `targets`: what is written, behind
        `start`, with `target_mask`. 0 where padded.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            ids = np.asarray(encode(item["text"]), np.int32)
            first = int(rng.integers(max(0, len(ids) - self.length + 1) + 1))
            ids = ids[first : first + self.length - 1]
            if self.shuffled and rng.random() < self.shuffled:
                read = written = np.array([*rng.permutation(ids), self.eos], np.int32)
            else:
                read, written = self.corrupted(ids, spans_to_hide(len(ids), *self.hidden(len(ids)), rng))
            return {
                "ids": np.pad(read, (0, self.length - len(read))),
                "mask": np.arange(self.length) < len(read),
                "decoder_ids": np.pad([self.start, *written[:-1]], (0, self.written - len(written))).astype(np.int32),
                "targets": np.pad(written, (0, self.written - len(written))),
                "target_mask": np.arange(self.written) < len(written),
            }

        return example

    def corrupted(
        self, ids: Int[np.ndarray, "T"], hidden: Bool[np.ndarray, "T"]
    ) -> tuple[Int[np.ndarray, "L"], Int[np.ndarray, "S"]]:
        """What is read and what is written of a text of which this is hidden."""
        read: list[int] = []
        written: list[int] = []
        sentinel = self.first_sentinel - 1
        for place, (token, away) in enumerate(zip(ids.tolist(), hidden.tolist(), strict=True)):
            if away and (place == 0 or not hidden[place - 1]):
                sentinel += 1
                read.append(sentinel)
                written.append(sentinel)
            (written if away else read).append(token)
        return np.array([*read, self.eos], np.int32), np.array([*written, self.eos], np.int32)


def spans_to_hide(length: int, hidden: int, spans: int, rng: np.random.Generator) -> Bool[np.ndarray, "T"]:
    """`hidden` of `length` ids in `spans` spans of random lengths, each behind a random stretch of at least one id."""
    if spans == 0:
        return np.zeros(length, bool)
    kept, away = _cut(length - hidden, spans, rng), _cut(hidden, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, np.stack([kept, away], 1).ravel())


def _cut(total: int, parts: int, rng: np.random.Generator) -> Int[np.ndarray, "P"]:
    """`total` as a sum of so many positive numbers, every one as likely as any other."""
    ends = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff([0, *ends, total])
