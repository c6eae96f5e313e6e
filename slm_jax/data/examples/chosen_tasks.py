"""Tasks made of others: the first that an item has an answer for, one of several, what fields of an item ask."""

import zlib

import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation
from slm_jax.data.examples.speech_tasks import (
    AnsweredTaskConfig,
    AskedTaskConfig,
    Item,
    SpeechTaskConfig,
    known_fields,
)


class FirstTaskConfig(SpeechTaskConfig):
    """The first of `tasks` that has an answer for the item; `kinds` is its own."""

    tasks: tuple[SpeechTaskConfig, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.tasks) >= 1, "tasks", len(self.tasks), "at least one")

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        task = self.task_of(item)
        return None if task is None else task.conversation(item, rate_hz, rng)

    def words(self, item: Item) -> tuple[str, ...] | None:
        task = self.task_of(item)
        return None if task is None else task.words(item)

    def key(self, item: Item) -> str:
        task = self.task_of(item)
        return "" if task is None else task.key(item)

    def task_of(self, item: Item) -> SpeechTaskConfig | None:
        """The task that the item is given; None where there is none."""
        return next((task for task in self._order(item) if _answers(task, item)), None)

    def _order(self, item: Item) -> tuple[SpeechTaskConfig, ...]:
        return self.tasks


class OneTaskConfig(FirstTaskConfig):
    """One of `tasks` that has an answer for the item; which one follows from its id."""

    def _order(self, item: Item) -> tuple[SpeechTaskConfig, ...]:
        rng = np.random.default_rng(zlib.crc32(str(item["id"]).encode()))
        return tuple(self.tasks[i] for i in rng.permutation(len(self.tasks)))


class FieldTaskConfig(AskedTaskConfig):
    """What is asked stands in fields of the item, too: `asks=("{question}",)`, `answers=("{answer}",)`."""

    def said(self, item: Item, rng: np.random.Generator) -> tuple[str, str] | None:
        fields = known_fields(item)
        forms = [form for form in self.asks if AskedTaskConfig(asks=(), answers=(form,)).said(item, rng) is not None]
        found = AskedTaskConfig(asks=tuple(forms), answers=self.answers).said(item, rng) if forms else None
        return None if found is None else (found[0].format_map(fields), found[1])


class ToldTaskConfig(AnsweredTaskConfig):
    """The item's own messages as they are, of items whose last question has written words, or (`written` False) is only
    heard."""

    kinds: tuple[str, ...] | None = None
    written: bool = False

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = super().conversation(item, rate_hz, rng)
        return said if said is not None and ("text" in said[-2].kinds) == self.written else None


def _answers(task: SpeechTaskConfig, item: Item) -> bool:
    return task.conversation(item, 16_000, np.random.default_rng(0)) is not None
