"""A transcribed corpus as examples of tasks: a corpus again, whose items are conversations that end with an answer."""

import functools
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.data.corpora.conversation_rows import COLUMNS, conversation_row
from slm_jax.data.corpora.report import REASONS_OF_TASKS
from slm_jax.data.corpora.settings import CorpusConfig
from slm_jax.data.corpora.splits import SPLITS
from slm_jax.data.corpora.task_folder import CORPUS_FILE
from slm_jax.data.corpus import kinds_of, open_corpus
from slm_jax.data.examples.named_tasks import NamedTaskConfig
from slm_jax.data.prepare import find_prepared
from slm_jax.data.shards.work import Left, Row, ShardWork

Item = dict[str, Any]


class TaskShardsConfig(ShardWork):
    """Every item of the prepared `corpus` in `data_dir` as an example of each of `tasks` that has an answer for it.

    `per_item`: how many of those are made, 0 for all; which ones follows from the item's id. Rows are items of a corpus
    (`tasks:FOLDER`, `TaskCorpusConfig`): `kind` is the kind of the task, `messages` end with the answer.
    """

    FREE = ("data_dir",)

    corpus: CorpusConfig
    tasks: tuple[NamedTaskConfig, ...]
    data_dir: str = "data"
    per_item: int = 0

    columns: ClassVar[tuple[str, ...]] = COLUMNS
    reasons: ClassVar[Mapping[str, str]] = REASONS_OF_TASKS

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [one.name for one in self.tasks]
        require(bool(names) and len(set(names)) == len(names), "tasks", names, "at least one, all names different")
        require(self.per_item >= 0, "per_item", self.per_item, "0 for all, or a positive number")

    def check(self) -> None:
        find_prepared(self.corpus, self.data_dir)

    def inputs(self) -> dict[str, Any]:
        return {"corpus": find_prepared(self.corpus, self.data_dir).parent.name}

    def counts(self) -> dict[str, int]:
        return {split: len(_opened(self, split)) for split in SPLITS}

    def rows(self, table: str, places: range) -> Iterator[Row | Left]:
        source = _opened(self, table)
        for place in places:
            try:
                yield from self.examples(source[place])
            except UserError as error:
                yield Left(source.ids[place], "damaged", str(error))

    def examples(self, item: Item) -> list[Row | Left]:
        """An item as examples of its tasks."""
        asked = [task for task in self.tasks if self._reads(task, item)]
        if self.per_item:
            rng = np.random.default_rng(_number(item["id"], ""))
            asked = [asked[i] for i in rng.permutation(len(asked))]
        found: list[Row | Left] = []
        for task in asked:
            if not self.per_item or len(found) < self.per_item:
                row = self.example(task, item)
                found += [] if row is None else [row]
        return found or [Left(item["id"], "no_task", f"of {', '.join(one.name for one in self.tasks)}")]

    def example(self, named: NamedTaskConfig, item: Item) -> Row | None:
        """An item as an example of one task; None where it has no answer for it."""
        task, rate_hz = named.task, self.corpus.rate_hz
        said = task.conversation(item, rate_hz, np.random.default_rng(_number(item["id"], named.name)))
        if said is None:
            return None
        told = {"id": f"{item['id']}/{named.name}", "kind": named.kind, "of": str(item["id"])}
        told |= {"speaker": str(item.get("speaker") or ""), "lang": str(item.get("lang") or "")}
        return conversation_row(said, rate_hz, words=task.words(item), answer=task.key(item), **told)

    def extras(self) -> dict[str, Any]:
        return {CORPUS_FILE: {"rate_hz": self.corpus.rate_hz}}

    def _reads(self, named: NamedTaskConfig, item: Item) -> bool:
        kinds = named.task.reads or self.corpus.default_kinds()
        return kinds is None or item["kind"] in kinds


def _number(item: str, task: str) -> int:
    return zlib.crc32(f"{item}/{task}".encode())


@functools.lru_cache(maxsize=6)
def _opened(work: TaskShardsConfig, split: str) -> Any:
    """All items of a split, of all kinds."""
    kinds = kinds_of(work.corpus, work.data_dir)
    return open_corpus(work.corpus, work.data_dir, split, kinds=kinds)
