"""Items of a corpus as conversations that end with an answer: tasks as data.

A task reads the kinds of items that it names and gives a conversation, or None for an item that it has no answer for.
Which wording is asked is drawn; which clips are heard is not.
"""

from string import Formatter
from typing import Any

import numpy as np

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech, Text, conversation
from slm_jax.data.passes import float_samples

Item = dict[str, Any]


class SpeechTaskConfig(Config):
    """What all tasks have.

    `kinds`: of the items that it reads; None: those that the corpus gives unasked. `counts`: how often every word of
    its answers counts in the loss, so that answers of one word weigh beside those of twenty; of a task that is made of
    others, its own.
    """

    kinds: tuple[str, ...] | None = None
    counts: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.counts < float("inf"), "counts", self.counts, "must be a finite number above 0")

    @property
    def reads(self) -> tuple[str, ...] | None:
        """`kinds`, of a task that is made of others theirs."""
        return self.kinds

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        """The item as a conversation whose last message is the assistant's answer; clips at `rate_hz` (Hz)."""
        raise TypeError(f"{type(self).__name__} makes no conversations")

    def words(self, item: Item) -> tuple[str, ...] | None:
        """What is said in the clips of `conversation`, in their order; None where that is not known."""
        return None

    def key(self, item: Item) -> str:
        """The word or words that a right answer holds; empty where nobody says."""
        return ""


class AskedTaskConfig(SpeechTaskConfig):
    """The whole recording, one of several wordings of what is asked, and an answer out of the item's fields.

    `answers`: wordings in which `{text}`, `{energy}` and so on stand for fields (see `known_fields`). An item that
    lacks one has no answer. `before`: what is asked stands before the clip. Without `asks` nothing is asked:
    p(text | speech).
    """

    asks: tuple[str, ...] = ("Write down what is said.",)
    answers: tuple[str, ...] = ("{text}",)
    before: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.answers) > 0, "answers", self.answers, "at least one wording")

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = self.said(item, rng)
        if said is None:
            return None
        clip, words = Speech(mono(item), rate_hz), (Text(said[0]),) if said[0] else ()
        parts = (*words, clip) if self.before else (clip, *words)
        return Message("user", parts), Message("assistant", (Text(said[1]),))

    def said(self, item: Item, rng: np.random.Generator) -> tuple[str, str] | None:
        """What is asked of the item and what is answered."""
        ask, form = _drawn(self.asks, rng), _drawn(self.answers, rng)
        fields = known_fields(item)
        return (ask, form.format_map(fields)) if all(fields.get(name) for name in _fields_of(form)) else None

    def words(self, item: Item) -> tuple[str, ...] | None:
        return (item["text"],) if item.get("text") else None

    def key(self, item: Item) -> str:
        """The field that the answers are made of, where that is one, and not all that is said."""
        names = {name for form in self.answers for name in _fields_of(form)} - {"text"}
        return str(known_fields(item).get(names.pop()) or "") if len(names) == 1 else ""


class AnsweredTaskConfig(SpeechTaskConfig):
    """The item's own messages up to the last words of the assistant, which are the answer.

    What is heard of a turn is that turn alone, never what comes after it. `asks`: words that are put to the last
    message of the user, one of them drawn; none are where there are no wordings.
    """

    kinds: tuple[str, ...] | None = ("question_answer", "instruction")
    asks: tuple[str, ...] = ()

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        turns, ask = item["messages"], _drawn(self.asks, rng)
        places = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.text]
        if not places or places[-1] == 0:
            return None
        asked = conversation(turns[: places[-1]], float_samples(item["samples"]), rate_hz)
        if ask:
            asked = (*asked[:-1], Message(asked[-1].role, (*asked[-1].parts, Text(ask))))
        return (*asked, Message("assistant", (Text(turns[places[-1]].text),)))

    def words(self, item: Item) -> tuple[str, ...] | None:
        turns = item["messages"]
        places = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.text]
        said = [turn.text for turn in turns[: places[-1]] if turn.is_heard] if places else [None]
        return tuple(text for text in said if text) if all(said) else None

    def key(self, item: Item) -> str:
        answers = [turn.answer for turn in item["messages"] if turn.role == "assistant" and turn.text]
        return (answers[-1] or "") if answers else ""


class ComposedTaskConfig(SpeechTaskConfig):
    """Several things asked of one recording at once, answered in their order (composed instructions)."""

    tasks: tuple[AskedTaskConfig, ...]
    then: str = " Then: "
    joined: str = " "

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.tasks) >= 2, "tasks", len(self.tasks), "at least two are composed")

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = [pair for task in self.tasks if (pair := task.said(item, rng)) is not None]
        if len(said) < len(self.tasks):
            return None
        asked, answer = self.then.join(ask for ask, _ in said), self.joined.join(words for _, words in said)
        clip = Speech(mono(item), rate_hz)
        return Message("user", (clip, Text(asked))), Message("assistant", (Text(answer),))

    @property
    def reads(self) -> tuple[str, ...] | None:
        return self.kinds or self.tasks[0].reads

    def words(self, item: Item) -> tuple[str, ...] | None:
        return self.tasks[0].words(item)


def mono(item: Item) -> np.ndarray:
    """The samples of an item `[N]` float32, its channels averaged."""
    samples = float_samples(item["samples"])
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def known_fields(item: Item) -> dict[str, Any]:
    """Fields of an item and, where it has them, those that its manifest has beside the usual ones.

    What follows from a text counts as well: `last_word`, and `word_count` in digits.
    """
    extra, words = item.get("extra"), str(item.get("text") or "").split()
    derived = {"last_word": words[-1].strip(".,;:!?\"'"), "word_count": str(len(words))} if words else {}
    return {**derived, **(extra if isinstance(extra, dict) else {}), **item}


def _fields_of(form: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(form) if name]


def _drawn(wordings: tuple[str, ...], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))] if wordings else ""
