"""A corpus by name: parse its short form, prepare it once, open a split for random access.

config = parse_corpus("world:hours=0.8")
report = prepare_corpus(config, data_dir)
source = open_corpus(config, data_dir, "train")
source[0]["samples"]                                   # int16 [N] at config.rate_hz
"""

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from slm_jax.core.errors import nearest, require
from slm_jax.core.paths import AnyPath, Place
from slm_jax.data.corpora.builders import Split
from slm_jax.data.corpora.conversations import from_text, whole
from slm_jax.data.corpora.settings import (
    RATE_HZ,
    CorpusConfig,
    FolderConfig,
    ManifestConfig,
    NamedCorpusConfig,
    RecordingsConfig,
    SeveralCorporaConfig,
    TaskCorpusConfig,
    TFDSConfig,
    WorldConfig,
    parse_corpus,
)
from slm_jax.data.corpora.splits import SPLIT_NAMES, SPLITS
from slm_jax.data.corpora.world_phones import PHONES
from slm_jax.data.corpora.world_turns import world_item
from slm_jax.data.joined import EndToEnd
from slm_jax.data.prepare import INDEX, Report, find_prepared, prepare_corpus
from slm_jax.data.records import INDEX_FILE, RecordSource

__all__ = [
    "PHONES",
    "RATE_HZ",
    "SPLITS",
    "CorpusConfig",
    "FolderConfig",
    "ManifestConfig",
    "NamedCorpusConfig",
    "RecordingsConfig",
    "Report",
    "SeveralCorporaConfig",
    "Source",
    "TFDSConfig",
    "TaskCorpusConfig",
    "WorldConfig",
    "open_corpus",
    "parse_corpus",
    "prepare_corpus",
]


class Source:
    """One split of a prepared corpus: `len(source)`, `source[i]`; can be pickled, and read by several threads.

    An item is a dict: `id`, `kind`, `text`, `speaker` (str), `seconds` (float), `samples` (int16 `[N]`, or `[N,
    channels]` in a corpus of several) at the corpus' `rate_hz`, and `messages` (tuple of `core.messages.Turn`: who says
    what when; one turn of the user where the corpus does not tell). Recordings add `lang`, `source` (str) and `extra`
    (dict).

    The world adds `phones` (list of str), `phone_ids` (int32 `[P]`, places in `PHONES`), `phone_start_s`, `phone_end_s`
    (float32 `[P]`), `words` (list of str), `word_start_s`, `word_end_s` (float32 `[W]`), `f0_hz` (float32 per 12.5 ms,
    0 where unvoiced; `[T, 2]` with two channels), `speed`, `question`, `answer`, `turns` (list of dicts with speaker,
    text, answer, start_s, end_s, voice, channel, and where they hold: sound, backchannel, and the labels of a style).
    Phones and words stand turn by turn, and `phone_turn`, `word_turn`
    (int32) say in which: with overlaps or backchannels those of two voices overlap in time, so that a time alone tells
    no phone, and in one channel `f0_hz` is that of the louder voice. `speaking_rate`, `energy`, `register`: the style
    of the first turn, empty where none was drawn. `task`: what an instruction asks (`world_instructions.TASKS`).

    `ids`, `kinds`, `speakers` (lists of str) and `seconds` (float64 array) tell of all items without reading them.
    """

    def __init__(self, folder: AnyPath, split: str, kinds: tuple[str, ...] | None = None) -> None:
        index = _index(folder)[split]
        rows = [i for i, kind in enumerate(index["kind"]) if kinds is None or kind in kinds]
        self.folder, self.split = folder, split
        self.ids, self.kinds, self.speakers = ([index[key][i] for i in rows] for key in ("id", "kind", "speaker"))
        self.seconds = np.asarray([index["seconds"][i] for i in rows], np.float64)
        self._rows = rows
        self._open_lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self._rows[i]
        with self._lock:
            self._data = self._data or _rows(self.folder, self.split)
        return _item(self._data[row])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_data", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_lock()

    def __repr__(self) -> str:
        """Names the content, and no object address: Grain keeps this text in its state and compares it."""
        return f"Source({self.folder.parent.name}, {self.split}, {len(self)} items)"

    def _open_lock(self) -> None:
        self._lock, self._data = threading.Lock(), None


def open_corpus(
    config: CorpusConfig, data_dir: Place, split: str, *, kinds: tuple[str, ...] | None = None
) -> Source | EndToEnd:
    """The items of one split (`train`, `dev` or `test`) of a prepared corpus.

    `kinds`: which kinds of records, by default those of `config.default_kinds()` (of the world, single sentences).
    Raises `UserError` for an unknown split, a corpus that is not prepared, and a kind of which it has nothing at all.
    """
    require(split in SPLIT_NAMES, "split", split, f"one of {', '.join(SPLITS)}")
    require_kinds(kinds, kinds_of(config, data_dir) if kinds else ())
    return _open(config, data_dir, SPLIT_NAMES[split], kinds)


def kinds_of(config: CorpusConfig, data_dir: Place) -> tuple[str, ...]:
    """The kinds of records of a prepared corpus, over all splits."""
    parts = [part.corpus for part in config.corpora] if isinstance(config, SeveralCorporaConfig) else [config]
    folders = [find_prepared(part, data_dir) for part in parts]
    return tuple(
        sorted({kind for folder in folders for columns in _index(folder).values() for kind in columns["kind"]})
    )


def require_kinds(kinds: Iterable[str] | None, known: Sequence[str]) -> None:
    """Raise `UserError` unless all `kinds` are among those that are there."""
    for kind in kinds or ():
        require(kind in known, "kind", kind, f"the corpus has {', '.join(known)}{nearest(kind, known)}")


def _open(config: CorpusConfig, data_dir: Place, split: str, kinds: tuple[str, ...] | None) -> Source | EndToEnd:
    if isinstance(config, SeveralCorporaConfig):
        return EndToEnd({part.name: _open(part.corpus, data_dir, split, kinds) for part in config.corpora})
    return Source(find_prepared(config, data_dir), split, kinds or config.default_kinds())


def _rows(folder: AnyPath, split: str) -> Split | RecordSource:
    """The rows of a split: a dataset of TFDS, or a table of shards."""
    table = folder / split
    return RecordSource(table) if (table / INDEX_FILE).is_file() else Split(folder, split)


def _index(folder: AnyPath) -> dict[str, dict[str, list]]:
    """Columns of all items, by split."""
    return json.loads((folder / INDEX).read_text())


def _item(stored: dict[str, Any]) -> dict[str, Any]:
    """A record as users see it: texts as str, and what was stored as text in its own form."""
    item: dict[str, Any] = {
        name: value.decode() if isinstance(value, bytes) else value for name, value in stored.items()
    }
    if "phone_ids" in item:
        return world_item(item)
    if "extra" in item:
        item["extra"] = json.loads(item["extra"])
    told = item.get("messages")
    item["messages"] = from_text(told) if told else whole(item["text"], item["speaker"], float(item["seconds"]))
    return item
