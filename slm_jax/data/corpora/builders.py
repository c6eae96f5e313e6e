"""TFDS builders that write parts as ArrayRecord, without TensorFlow.

The same parts give the same records in the same order. The bytes of the files differ from process to process, since
TFDS writes each record as a protocol buffer whose map has no fixed order.
"""

import contextlib
import dataclasses
import io
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from slm_jax.core.errors import UserError
from slm_jax.core.paths import AnyPath, local_folder
from slm_jax.data.corpora.parts import read_part
from slm_jax.data.corpora.settings import STYLE_FIELDS
from slm_jax.data.corpora.spool import spooled

features = tfds.features


def _array(dtype: Any, channels: int = 1) -> features.Tensor:
    """A vector of any length, or one of that length per channel, stored as its bytes."""
    shape = (None,) if channels == 1 else (None, channels)
    return features.Tensor(shape=shape, dtype=dtype, encoding=features.Encoding.BYTES)


COMMON = {
    "id": features.Text(),
    "kind": features.Text(),
    "text": features.Text(),
    "speaker": features.Text(),
    "seconds": np.float32,
}
PER_CHANNEL = {"samples": np.int16, "f0_hz": np.float32}
"""Arrays `[N]`, or `[N, channels]` in a corpus of several channels."""
TIMED = {
    **{name: _array(np.int32) for name in ("phone_ids", "phone_turn", "word_turn")},
    **{name: _array(np.float32) for name in ("phone_start_s", "phone_end_s", "word_start_s", "word_end_s")},
    **{name: features.Text() for name in ("words", "question", "answer", "turns", "messages", "task", *STYLE_FIELDS)},
    "speed": np.float32,
}
ORIGIN = {name: features.Text() for name in ("lang", "source", "extra", "messages")}


@dataclasses.dataclass(eq=False, kw_only=True)
class PartsConfig(tfds.core.BuilderConfig):
    """What a builder writes: part files with the number of records to take of each, and the splits that occur.

    `moved`: the split of those records, by id, that are not to go where their part says. `channels`: how many the
    samples have.
    """

    parts: tuple[tuple[Path, int], ...] = ()
    splits: tuple[str, ...] = ()
    moved: Mapping[str, str] = dataclasses.field(default_factory=dict)
    channels: int = 1


class PartsBuilder(tfds.core.GeneratorBasedBuilder):
    """Writes the records of its parts, in their order, each into the split that it names."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = epath.Path(__file__)  # found by TFDS through a package that it does not depend on
    FIELDS: ClassVar[dict[str, Any]] = {}
    ARRAYS: ClassVar[tuple[str, ...]] = ("samples",)

    def _info(self) -> tfds.core.DatasetInfo:
        arrays = {name: _array(PER_CHANNEL[name], self.builder_config.channels) for name in self.ARRAYS}
        return tfds.core.DatasetInfo(
            builder=self, features=features.FeaturesDict(COMMON | arrays | self.FIELDS), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self.builder_config.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        names, moved = self.info.features.keys(), self.builder_config.moved
        number = 0
        for path, take in self.builder_config.parts:
            for record in read_part(path, take, lambda record: moved.get(record["id"], record.get("split")) == split):
                yield number, {name: record[name] for name in names}
                number += 1


class World(PartsBuilder):
    """The synthetic world, with its phones, words, pitch and turns."""

    FIELDS = TIMED
    ARRAYS = ("samples", "f0_hz")


class Recordings(PartsBuilder):
    """Recorded speech, with where it comes from."""

    FIELDS = ORIGIN


def write_dataset(builder_class: type[PartsBuilder], config: PartsConfig, data_dir: Path) -> Path:
    """Write the parts as a TFDS dataset below `data_dir`; its folder, which appears whole or not at all."""
    tfds.disable_progress_bar()
    level = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)  # it remarks that our settings are not among its own
    try:
        with spooled(), contextlib.redirect_stdout(io.StringIO()):  # it prints, and a program may read our output
            builder = builder_class(data_dir=data_dir, config=config, file_format="array_record")
            builder.download_and_prepare()
    finally:
        absl.logging.set_verbosity(level)
    return Path(builder.data_path)


def dataset_folder(builder_class: type[PartsBuilder], name: str, data_dir: AnyPath) -> AnyPath:
    """Where `write_dataset` puts the dataset whose config is called `name`."""
    return data_dir / builder_class.name / name / str(builder_class.VERSION)


class Split:
    """One split of a dataset: `split[row]` is a record as TFDS decodes it. One in a store is copied to this machine.

    Raises `UserError` that names the file for a shard that is missing, when it is opened, and for one that cannot be
    read, when a record in it is wanted.
    """

    def __init__(self, folder: AnyPath, split: str) -> None:
        here = local_folder(folder, lambda name: name.endswith(".json") or f"-{split}.array_record" in name)
        builder = tfds.builder_from_directory(here)
        self._shards = builder.info.splits[split].filepaths
        self._ends = list(accumulate(builder.info.splits[split].shard_lengths))
        for shard in self._shards:
            if not shard.is_file():
                raise UserError(f"shard {str(shard)!r} is missing: delete its folder and prepare the corpus again")
        self._data = builder.as_data_source(split)

    def __getitem__(self, row: int) -> dict[str, Any]:
        try:
            return self._data[row]
        except Exception as error:  # array_record and protobuf raise several kinds
            shard, why = self._shards[bisect_right(self._ends, row)], " ".join(str(error).split())[:200]
            way = "delete its folder and prepare the corpus again"
            raise UserError(f"shard {str(shard)!r} is damaged ({why} at record {row} of the split): {way}") from error
