"""When words are said, by forced alignment: a table beside the corpus, for whoever wants words in time."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from slm_jax.data.examples.aligned_speech import ALIGNED
from slm_jax.data.joined import Joined
from slm_jax.data.records import INDEX_FILE, RecordSource, write_records
from slm_jax.evaluation.ctc import CTCReader
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.post.clip_words import ctc_reader
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageConfig, StageContext

WORDS = "words"
SPLITS = ("train", "dev")


class WordTimesConfig(StageConfig):
    """Aligns the texts of the corpus with its speech by the CTC stage `stage`, for the splits train and dev.

    `kinds`: of items, None for those that the corpus gives unless asked otherwise. An item that the stage could not
    have learnt from (too long, no text), or whose text does not fit into its frames, has no words.
    """

    stage: str
    kinds: tuple[str, ...] | None = None
    rows: int = 256

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.stage,)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        on_first_host(lambda: self._write(folder, context))
        return [WORDS]

    def _write(self, folder: StageFolder, context: StageContext) -> None:
        reader = ctc_reader(context, self.stage)
        for split in SPLITS:
            table, source = folder.path / WORDS / split, context.source(split, self.kinds)
            if not (table / INDEX_FILE).is_file():
                write_records(table, self._rows(source, reader))

    def _rows(self, source: Any, reader: CTCReader) -> Iterator[dict[str, Any]]:
        for start in range(0, len(source), self.rows):
            items = [source[place] for place in range(start, min(start + self.rows, len(source)))]
            fitting = [item for item in items if item.get("text") and reader.example.fits(item)]
            times = {item["id"]: one for item, one in zip(fitting, reader.times(fitting), strict=True) if one}
            yield from (_row(item["id"], times.get(item["id"])) for item in items)


def with_word_times(source: Any, stage: str, split: str, context: StageContext) -> Joined:
    """The items with what the finished stage `stage` found; the source holds the items that it read."""
    return Joined(source, RecordSource(context.finished(stage).path / WORDS / split))


def _row(name: str, times: Any) -> dict[str, Any]:
    none = np.zeros(0, np.float32)
    found = ((), none, none) if times is None else (times.words, times.start_s, times.end_s)
    fields = dict(zip(ALIGNED, found, strict=True))
    return {"id": name, **fields, ALIGNED[0]: list(found[0])}
