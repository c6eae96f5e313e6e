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
    """What all tasks have: the kinds of items that they read (None: those that the corpus gives unasked)."""

    kinds: tuple[str, ...] | None = None

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        """The item as a conversation whose last message is the assistant's answer; clips at `rate_hz` (Hz)."""
        raise TypeError(f"{type(self).__name__} makes no conversations")


class AskedTaskConfig(SpeechTaskConfig):
    """The whole recording, one of several wordings of what is asked, and an answer out of the item's fields.

    `answers`: wordings in which `{text}`, `{energy}` and so on stand for fields, also those that a manifest has beside
    the usual ones. An item that lacks one has no answer. `before`: what is asked stands before the clip.
    """

    asks: tuple[str, ...] = ("Write down what is said.",)
    answers: tuple[str, ...] = ("{text}",)
    before: bool = False

    def __post_init__(self) -> None:
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
        if any(not fields.get(name) for _, name, _, _ in Formatter().parse(form) if name):
            return None
        return ask, form.format_map(fields)


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


class ComposedTaskConfig(SpeechTaskConfig):
    """Several things asked of one recording at once, answered in their order (composed instructions)."""

    tasks: tuple[AskedTaskConfig, ...]
    then: str = " Then: "
    joined: str = " "

    def __post_init__(self) -> None:
        require(len(self.tasks) >= 2, "tasks", len(self.tasks), "at least two are composed")

    def conversation(self, item: Item, rate_hz: int, rng: np.random.Generator) -> Conversation | None:
        said = [pair for task in self.tasks if (pair := task.said(item, rng)) is not None]
        if len(said) < len(self.tasks):
            return None
        asked, answer = self.then.join(ask for ask, _ in said), self.joined.join(words for _, words in said)
        clip = Speech(mono(item), rate_hz)
        return Message("user", (clip, Text(asked))), Message("assistant", (Text(answer),))


def mono(item: Item) -> np.ndarray:
    """The samples of an item `[N]` float32, its channels averaged."""
    samples = float_samples(item["samples"])
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def known_fields(item: Item) -> dict[str, Any]:
    """Fields of an item and, where it has them, those that its manifest has beside the usual ones."""
    extra = item.get("extra")
    return {**(extra if isinstance(extra, dict) else {}), **item}


def _drawn(wordings: tuple[str, ...], rng: np.random.Generator) -> str:
    return wordings[int(rng.integers(len(wordings)))] if wordings else ""
