"""Whole utterances with their text spelled out: CTC."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.data.passes import float_samples
from slm_jax.text.tokenizers import CharacterTokenizer, CharacterTokenizerConfig

BLANK = 0
"""The class of CTC that stands for no label; the tokenizer's ids follow it."""
LETTERS = CharacterTokenizerConfig(characters=" 'abcdefghijklmnopqrstuvwxyz")
"""The labels of English in most published recipes."""


class TranscribedSpeechConfig(Config):
    """Utterances of up to `samples` samples whose text has up to `labels` characters of `tokenizer`."""

    samples: int
    labels: int
    tokenizer: CharacterTokenizerConfig = LETTERS

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples", self.samples, "at least 1")
        require(self.labels >= 1, "labels", self.labels, "at least 1")

    @property
    def classes(self) -> int:
        """The blank and the characters."""
        return 1 + len(self.tokenizer.characters)

    @cached_property
    def _tokenizer(self) -> CharacterTokenizer:
        return self.tokenizer.make()

    def plain(self, text: str) -> str:
        """`text` in the tokenizer's characters: others in lower case, or else as a space; runs of spaces are one."""
        known = self.tokenizer.characters
        spelled = (c if c in known else c.lower() if c.lower() in known else " " for c in text)
        space = " " if " " in known else ""
        return space.join("".join(spelled).split())

    def labels_of(self, text: str) -> Int[np.ndarray, "L"]:
        """Classes of the characters of `plain(text)`."""
        return np.asarray(self._tokenizer.encode(self.plain(text)), np.int32) + 1

    def text_of(self, labels: Sequence[int] | Int[np.ndarray, "L"]) -> str:
        """The text that labels without blanks spell."""
        return self._tokenizer.decode([int(label) - 1 for label in labels])

    def fits(self, item: dict[str, Any]) -> bool:
        """Has an item a text, and is there room for it and its samples?"""
        return len(item["samples"]) <= self.samples and 1 <= len(self.labels_of(item["text"])) <= self.labels

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item that fits, with `samples` `[N]` and `text`, to one example.

        The example: `samples` `[N]` float32, `sample_mask` `[N]`, `labels` `[L]` int32 (`BLANK` where padded),
        `label_mask` `[L]`.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            samples, labels = float_samples(item["samples"]), self.labels_of(item["text"])
            return {
                "samples": np.pad(samples, (0, self.samples - len(samples))),
                "sample_mask": np.arange(self.samples) < len(samples),
                "labels": np.pad(labels, (0, self.labels - len(labels)), constant_values=BLANK),
                "label_mask": np.arange(self.labels) < len(labels),
            }

        return example
