"""What frozen encoders make of the clips of a stage, kept in a table, so that each clip is encoded once."""

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from slm_jax.assemblies.speech_aware_lm import features_name
from slm_jax.core.config import content_hash
from slm_jax.core.paths import AnyPath
from slm_jax.core.types import Frames
from slm_jax.data.examples.speech_prompts import SpeechPromptExample, counts_name
from slm_jax.data.joined import Joined
from slm_jax.data.lengths import bucket_lengths
from slm_jax.data.passes import finite_batches, in_order, one_behind
from slm_jax.data.progress import tracked
from slm_jax.data.records import RecordSource, write_records
from slm_jax.text.templates import clips_of

ROWS = 16
"""Clips that are encoded at once."""


@dataclasses.dataclass(frozen=True)
class Clips:
    """The clips of a source's items, item by item, as examples of a finite pass."""

    source: Any
    example: SpeechPromptExample

    def of(self, place: int) -> list[np.ndarray]:
        """The clips `[N]` of one item."""
        item = self.source[place]
        said = self.example.task.conversation(item, self.example.rate_hz, np.random.default_rng(0))
        return [clip.samples for clip in clips_of(said or ())]

    @cached_property
    def lengths(self) -> list[list[int]]:
        """Samples of the clips of every item."""
        return [[len(clip) for clip in self.of(place)] for place in range(len(self.source))]

    @cached_property
    def signature(self) -> str:
        """What tells these clips from others: two tasks often hear the same recordings."""
        heard = ([(len(clip), float(np.sum(clip))) for clip in self.of(place)] for place in range(len(self.source)))
        return content_hash([(self.source[place]["id"], own) for place, own in enumerate(heard)])

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """(item, number) of every clip."""
        return [(place, number) for place, own in enumerate(self.lengths) for number in range(len(own))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, number = self.places[index]
        return {"id": str(index), "samples": self.of(place)[number]}


def with_features(clips: Clips, model: Any, params: Any, table: AnyPath, name: str, show: bool) -> Joined:
    """The items of `clips` with `features` [T, E] of their clips and the `counts` of their frames.

    Of a second encoder `features_1` and `counts_1`. The table is written unless it is there. `params`: those of the
    encoders.
    """
    if not (table / "index.json").is_file():
        write_records(table, _rows(clips, model, params, name, show))
    return Joined(clips.source, RecordSource(table))


def _rows(clips: Clips, model: Any, params: Any, name: str, show: bool) -> Iterator[dict[str, Any]]:
    """A row for every item, in order."""
    frames = in_order(_encoded(clips, model, params, name, show), len(clips))
    for place, lengths in enumerate(clips.lengths):
        own = list(islice(frames, len(lengths)))
        row: dict[str, Any] = {"id": clips.source[place]["id"]}
        for number, encoder in enumerate(model.config.encoders):
            streams = [streams[number] for streams in own]
            row[features_name(number)] = np.concatenate([np.zeros((0, encoder.width), np.float32), *streams])
            row[counts_name(number)] = np.array([len(one) for one in streams], np.int32)
        yield row


def _encoded(
    clips: Clips, model: Any, params: Any, name: str, show: bool
) -> Iterator[tuple[int, list[Float[np.ndarray, "T E"]]]]:
    """Index and frames, by encoder, of every clip, in any order."""
    samples = np.array([count for own in clips.lengths for count in own], np.int64)
    lengths = bucket_lengths(samples, count=4, multiple=clips.example.rate_hz // 10)
    encode = jax.jit(lambda params, samples, mask: model.apply({"params": params}, samples, mask, method="encoded"))

    def made() -> Iterator[tuple[dict[str, Any], tuple[Frames, ...]]]:
        for batch in tracked(finite_batches(clips, lengths, ROWS), len(clips), name, show):
            yield batch, encode(params, batch["samples"][:, None], batch["mask"][:, None])

    for batch, streams in one_behind(made()):
        found = [(np.asarray(one.values, np.float32), np.asarray(one.mask)) for one in streams]
        for row in np.flatnonzero(batch["valid"]):
            yield int(batch["index"][row]), [values[row][real[row]] for values, real in found]


def heard_s(frame_s: float, entry_s: float, batch: dict[str, np.ndarray]) -> float:
    """Seconds of speech in a batch: a frame of an encoder lasts `frame_s`, a sample (or unit) `entry_s`."""
    kept = "features" in batch
    return float(batch["feature_mask" if kept else "sample_mask"].sum()) * (frame_s if kept else entry_s)
