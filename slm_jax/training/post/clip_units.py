"""The units of the clips of a stage, kept in a table: what is read of them in the place of samples."""

import dataclasses
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from slm_jax.assemblies.unit_sequences import UnitSequences
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.paths import AnyPath
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.examples.speech_prompts import SpeechPromptExample
from slm_jax.data.joined import Joined, Subset
from slm_jax.data.lengths import bucket_lengths
from slm_jax.data.passes import finite_batches, in_order
from slm_jax.data.progress import tracked
from slm_jax.data.records import INDEX_FILE, RecordSource
from slm_jax.data.shares import share_of, write_shared
from slm_jax.encoders.unit_embedding import UnitEmbeddingConfig
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.post.clip_features import ROWS, Clips
from slm_jax.training.stages import StageContext
from slm_jax.training.token_stage import token_stage

COUNTED = 1000
"""Rows by which it is judged how long a unit lasts."""


class ClipUnitsConfig(Config):
    """Clips are read as what the token stage `stage` makes of them, with `runs` without repetitions.

    Byte pairs are read one by one. `most`: units of a clip; one that has more is left out. None: a unit for each frame
    of the longest clip.
    """

    stage: str
    runs: bool = True
    most: int | None = None

    def __post_init__(self) -> None:
        require(self.most is None or self.most >= 1, "most", self.most, "units, at least 1, or None")

    def sequences(self, context: StageContext) -> UnitSequences:
        """What makes units of clips, once the stage is done."""
        return UnitSequences(token_stage(context, self.stage).tokenizer(context), self.runs)  # type: ignore[arg-type]

    def room(self, spec: TokenSpec, encoder: Config | None, samples: int) -> int:
        """Units of the longest clip, which has so many samples; raises `UserError` where `encoder` knows too few."""
        known = encoder.units if isinstance(encoder, UnitEmbeddingConfig) else 0
        require(known >= spec.units, "encoder.units", known, f"stage {self.stage!r} makes {spec.units}")
        return -(-samples // spec.hop) if self.most is None else self.most

    def read(
        self, source: Any, example: SpeechPromptExample, encoder: Config | None, table: AnyPath, context: StageContext
    ) -> tuple[Joined, SpeechPromptExample]:
        """The items of `source` with the units of their clips, which `table` keeps, and examples of these."""
        sequences = self.sequences(context)
        room = self.room(sequences.tokenizer.spec, encoder, example.clip)
        found = with_clip_ids(source, example, sequences, table, f"units of {table.name}", context.progress)
        return found, dataclasses.replace(example, clip=room, dtype="int32")


def with_clip_ids(
    source: Any, example: SpeechPromptExample, sequences: UnitSequences, table: AnyPath, name: str, show: bool
) -> Joined:
    """The items of `source` with the units `clip_ids` [U] of their clips and the `counts` of each.

    The table is written unless it is there; hosts share the work.
    """
    if not on_first_host(lambda: (table / INDEX_FILE).is_file()):
        own = share_of(len(source))
        rows = _rows(Clips(Subset(source, own), example), sequences, name, show)
        write_shared(table, zip(own, rows, strict=True), len(source))
    return Joined(source, RecordSource(table))


def seconds_per_id(items: Any, rate_hz: int) -> float:
    """How long a unit lasts in the mean of the first items."""
    rows = [items[place] for place in range(min(COUNTED, len(items)))]
    ids = sum(int(row["counts"].sum()) for row in rows)
    return sum(int(row["clip_samples"].sum()) for row in rows) / rate_hz / max(ids, 1)


def _rows(clips: Clips, sequences: UnitSequences, name: str, show: bool) -> Iterator[dict[str, Any]]:
    """A row for every item, in order."""
    made = in_order(_units(clips, sequences, name, show), len(clips))
    for place, lengths in enumerate(clips.lengths):
        own = list(islice(made, len(lengths)))
        yield {
            "id": clips.source[place]["id"],
            "clip_ids": np.concatenate([np.zeros(0, np.int32), *own]),
            "counts": np.array([len(one) for one in own], np.int32),
            "clip_samples": np.array(lengths, np.int64),
        }
    next(made, None)  # the pass ends, and says so if a clip never came


def _units(clips: Clips, sequences: UnitSequences, name: str, show: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Index and units of every clip, in any order."""
    samples = np.array([count for own in clips.lengths for count in own], np.int64)
    if not len(samples):
        return
    lengths = bucket_lengths(samples, count=4, multiple=clips.example.rate_hz // 10)
    for batch in tracked(finite_batches(clips, lengths, ROWS), len(clips), name, show):
        units = sequences.of_batch(batch["samples"], batch["mask"])
        yield from ((int(batch["index"][row]), units[row]) for row in np.flatnonzero(batch["valid"]))
