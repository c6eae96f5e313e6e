"""What judging and prompting need of a corpus, kept in the run folder: they work when corpus and recordings are gone.

runs/demo/kept/        stage.json, speech/test, speech/train, items.json, lengths.json, done.json
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from slm_jax.checkpoints.integrity import write_json
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Turn
from slm_jax.data.corpora.conversations import whole
from slm_jax.data.corpus import SPLITS, require_kinds
from slm_jax.data.joined import Subset
from slm_jax.data.records import RecordSource, write_records
from slm_jax.training.run_folder import RunFolder, StageFolder

KEPT, SPEECH, LENGTHS, ITEMS = "kept", "speech", "lengths.json", "items.json"
ALWAYS = ("id", "kind", "text", "speaker", "seconds", "samples", "messages")
"""Columns that every kept item has."""
_verified: set[tuple[str, str]] = set()
"""Folder and hash of what this process has read through."""


class KeptSpeechConfig(Config):
    """What a run folder keeps of its corpus: about `minutes` of each of `splits`.

    `splits` None: the test split, and the train split where the corpus has true phones, since comparisons of features
    and the phone classifier need both. A split that is shorter is kept whole; of a longer one every n-th item. `kinds`
    of items, None for those that the corpus gives unless asked otherwise. `columns` beside `ALWAYS`, None for all.
    """

    minutes: float = 20.0
    splits: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require(self.minutes > 0, "minutes", self.minutes, "must be positive")
        known = self.splits is None or (bool(self.splits) and set(self.splits) <= set(SPLITS))
        require(known, "splits", self.splits, f"some of {', '.join(SPLITS)}, or None")
        require(self.kinds is None or bool(self.kinds), "kinds", self.kinds, "at least one, or None")

    def keeps(self, split: str, source: Any) -> bool:
        """Is this split kept?"""
        if self.splits is not None:
            return split in self.splits
        return split == "test" or (split == "train" and len(source) > 0 and "phone_ids" in source[0])

    def chosen(self, source: Any) -> Subset:
        """The part of a corpus' split that is kept."""
        every = max(1, round(float(source.seconds.sum()) / (60 * self.minutes)))
        return Subset(source, range(0, len(source), every))

    def row(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item as a row of the table."""
        wanted = item if self.columns is None else [name for name in item if name in (*ALWAYS, *self.columns)]
        messages = [turn.to_json() for turn in item["messages"]]
        return {**{name: item[name] for name in wanted}, "messages": messages}


class KeptSource(RecordSource):
    """Items of a corpus that a run folder keeps, as the corpus gives them."""

    def __getitem__(self, position: int) -> dict[str, Any]:
        item = super().__getitem__(position)
        told = item.get("messages")  # absent from run folders of before there were messages
        plain = whole(item["text"], item["speaker"], float(item["seconds"]))
        return item | {"messages": plain if told is None else tuple(map(Turn.from_json, told))}

    @property
    def seconds(self) -> np.ndarray:
        """The lengths of all items."""
        return np.asarray([self[i]["seconds"] for i in range(len(self))], np.float64)


def kept_folder(run: RunFolder) -> StageFolder:
    """Where a run keeps speech."""
    return StageFolder(run.path / KEPT)


def keep_speech(
    run: RunFolder,
    source: Callable[..., Any],
    lengths: tuple[int, ...],
    corpus_hash: str,
    config: KeptSpeechConfig = KeptSpeechConfig(),
) -> None:
    """Write the kept part of the corpus unless it is there; a killed call leaves nothing that counts.

    `source(split, kinds)` opens a split of the corpus; `lengths`: the shapes (samples) of passes over it, which are
    kept too, so that figures do not depend on where the speech is read from.
    """
    folder = kept_folder(run)
    folder.begin(config, {"corpus": corpus_hash})
    if folder.is_done():
        return
    items: dict[str, dict[str, list]] = {}
    for split in SPLITS:
        speech = source(split, config.kinds)
        if config.keeps(split, speech):
            chosen = config.chosen(speech)
            write_records(folder.path / SPEECH / split, (config.row(chosen[i]) for i in range(len(chosen))))
            usual = set(source(split, None).ids)
            ids, kinds = ([getattr(speech, name)[i] for i in chosen.indices] for name in ("ids", "kinds"))
            items[split] = {"kind": kinds, "usual": [one in usual for one in ids]}
    write_json(folder.path / ITEMS, items)
    write_json(folder.path / LENGTHS, list(lengths))
    folder.finish([part for part in (SPEECH, ITEMS, LENGTHS) if (folder.path / part).exists()])


def kept_source(run: RunFolder, split: str, kinds: Sequence[str] | None = None) -> KeptSource | Subset:
    """The kept speech of a split, items as the corpus gives them; may be empty.

    `kinds` None: those that the corpus gives unless asked otherwise. What is kept is compared with its checksums once
    per process. Raises `UserError` when it is damaged, when nothing of the split is kept, and for a kind of which
    nothing is kept.
    """
    folder = kept_folder(run)
    _verify_once(folder)
    table = folder.path / SPEECH / split
    if not table.is_dir():
        raise UserError(f"run folder {str(run.path)!r} keeps no {split} speech: its corpus had none to judge by")
    source, items = KeptSource(table), _items(folder)
    if not items:  # of a version that kept the usual kinds only
        require_kinds(kinds, known := sorted({source[i]["kind"] for i in range(len(source))}) if kinds else ())
        return source if kinds is None or set(known) <= set(kinds) else _of_kinds(source, kinds)
    require_kinds(kinds, sorted({kind for columns in items.values() for kind in columns["kind"]}))
    columns = items[split]
    wanted = columns["usual"] if kinds is None else [kind in kinds for kind in columns["kind"]]
    return source if all(wanted) else Subset(source, np.flatnonzero(wanted).tolist())


def kept_kinds(run: RunFolder) -> tuple[str, ...]:
    """The kinds of items that a run folder keeps; none of an older one, which kept the usual kinds only."""
    return tuple(sorted({kind for columns in _items(kept_folder(run)).values() for kind in columns["kind"]}))


def kept_lengths(run: RunFolder) -> tuple[int, ...]:
    """The shapes (samples) of passes over the run's corpus."""
    path = kept_folder(run).path / LENGTHS
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def _of_kinds(source: RecordSource, kinds: Sequence[str]) -> Subset:
    return Subset(source, [i for i in range(len(source)) if source[i]["kind"] in kinds])


def _items(folder: StageFolder) -> dict[str, dict[str, list]]:
    """Kind of every kept item, and whether the corpus gives it unasked, by split; empty in an older run folder."""
    path = folder.path / ITEMS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _verify_once(folder: StageFolder) -> None:
    key = (str(folder.path), folder.artifact_hash())
    if key not in _verified:
        folder.verify()
        _verified.add(key)
