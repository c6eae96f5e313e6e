"""What judging and prompting need of a corpus, kept in the run folder: they work when corpus and recordings are gone.

runs/demo/kept/        stage.json, speech/test, speech/train, lengths.json, done.json
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from slm_jax.checkpoints.integrity import write_json
from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, require
from slm_jax.data.joined import Subset
from slm_jax.data.records import RecordSource, write_records
from slm_jax.training.run_folder import RunFolder, StageFolder

KEPT, SPEECH, LENGTHS = "kept", "speech", "lengths.json"
NESTED = ("turns", "messages", "extra")
"""Fields of an item that a table cannot hold and no judge reads."""


class KeptSpeechConfig(Config):
    """About `minutes` of the test split, and as many of the train split where the corpus has true phones.

    A split that is shorter is kept whole; of a longer one every n-th utterance. Training speech serves comparisons
    of features and the phone classifier, which both need phones.
    """

    minutes: float = 20.0

    def __post_init__(self) -> None:
        require(self.minutes > 0, "minutes", self.minutes, "must be positive")

    def chosen(self, source: Any) -> Subset:
        """The part of a corpus' split that is kept."""
        every = max(1, round(float(source.seconds.sum()) / (60 * self.minutes)))
        return Subset(source, range(0, len(source), every))


def kept_folder(run: RunFolder) -> StageFolder:
    """Where a run keeps speech."""
    return StageFolder(run.path / KEPT)


def keep_speech(
    run: RunFolder,
    source: Callable[[str], Any],
    lengths: tuple[int, ...],
    corpus_hash: str,
    config: KeptSpeechConfig = KeptSpeechConfig(),
) -> None:
    """Write the kept part of the corpus unless it is there; a killed call leaves nothing that counts.

    `source(split)` opens a split of the corpus; `lengths`: the shapes (samples) of passes over it, which are kept too,
    so that figures do not depend on where the speech is read from.
    """
    folder = kept_folder(run)
    folder.begin(config, {"corpus": corpus_hash})
    if folder.is_done():
        return
    for split in ("test", "train"):
        speech = source(split)
        if len(speech) and (split == "test" or "phone_ids" in speech[0]):
            write_records(folder.path / SPEECH / split, kept_rows(config.chosen(speech)))
    write_json(folder.path / LENGTHS, list(lengths))
    folder.finish([part for part in (SPEECH, LENGTHS) if (folder.path / part).exists()])


def kept_rows(source: Any) -> Iterator[dict[str, Any]]:
    """The items of `source` as rows of a table."""
    for i in range(len(source)):
        yield {name: value for name, value in source[i].items() if name not in NESTED}


def kept_source(run: RunFolder, split: str) -> RecordSource:
    """The kept speech of a split, items as the corpus gives them; raises `UserError` when it is damaged or none."""
    folder = kept_folder(run)
    folder.verify()
    table = folder.path / SPEECH / split
    if not table.is_dir():
        raise UserError(f"run folder {str(run.path)!r} keeps no {split} speech: its corpus had none to judge by")
    return RecordSource(table)


def kept_lengths(run: RunFolder) -> tuple[int, ...]:
    """The shapes (samples) of passes over the run's corpus."""
    path = kept_folder(run).path / LENGTHS
    return tuple(json.loads(path.read_text(encoding="utf-8")))
