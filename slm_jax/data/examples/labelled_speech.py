"""Stretches of speech with a class that the corpus knows, such as how a voice speaks: training classifiers."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.data.corpora.settings import STYLE_FIELDS, STYLES
from slm_jax.data.corpora.world_manner import LABELS
from slm_jax.data.passes import float_samples


class LabelsConfig(Config):
    """Which `fields` of an item make its class, and which `values` each may have: a class for every combination."""

    fields: tuple[str, ...] = STYLE_FIELDS
    values: tuple[tuple[str, ...], ...] = tuple(tuple(LABELS[style]) for style in STYLES)

    def __post_init__(self) -> None:
        require(len(self.fields) > 0, "fields", self.fields, "at least one")
        require(len(self.values) == len(self.fields), "values", self.values, f"a list for each of {self.fields}")
        require(self.count > 1, "values", self.values, "two classes or more")

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in words, in their order: `slow soft low`, ..."""
        return tuple(" ".join(values) for values in itertools.product(*self.values))

    def has(self, item: dict[str, Any]) -> bool:
        """Whether an item says all fields."""
        return all(item.get(field) for field in self.fields)

    def class_of(self, item: dict[str, Any]) -> int:
        """The class of an item; raises `UserError` for a value that is not listed."""
        place = 0
        for field, values in zip(self.fields, self.values, strict=True):
            value = item.get(field)
            require(value in values, f"{field} of item {item['id']!r}", value, f"one of {', '.join(values)}")
            place = place * len(values) + values.index(value)
        return place


def world_labels(*styles: str) -> LabelsConfig:
    """What the world notes of some of `rate`, `energy` and `register`."""
    unknown = [style for style in styles if style not in STYLES]
    require(not unknown, "styles", unknown, f"some of {', '.join(STYLES)}")
    fields = dict(zip(STYLES, STYLE_FIELDS, strict=True))
    return LabelsConfig(
        fields=tuple(fields[style] for style in styles), values=tuple(tuple(LABELS[style]) for style in styles)
    )


class LabelledSpeechConfig(Config):
    """A random stretch of `samples` samples with the class of the item that it is from."""

    samples: int
    labels: LabelsConfig = LabelsConfig()

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples", self.samples, "at least 1")

    def make(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, np.ndarray]]:
        """A function of an item with `samples` `[N]` and the fields of the labels to one example.

        The example: `samples` `[N]` float32, `sample_mask` `[N]`, `label` int32.
        """

        def example(item: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
            start = int(rng.integers(max(0, len(item["samples"]) - self.samples) + 1))
            samples = float_samples(item["samples"][start : start + self.samples])
            return {
                "samples": np.pad(samples, (0, self.samples - len(samples))),
                "sample_mask": np.arange(self.samples) < len(samples),
                "label": np.asarray(self.labels.class_of(item), np.int32),
            }

        return example
