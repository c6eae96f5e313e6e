"""Rows of a speech-aware LM with what alignment wants beside them: the row in writing, and when each token is said."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.messages import Conversation
from slm_jax.data.examples.described_tasks import described
from slm_jax.data.examples.speech_prompts import Entries, SpeechPromptExample, read_of
from slm_jax.data.examples.speech_tasks import Item
from slm_jax.data.word_times import TimedWords, words_of
from slm_jax.text.marked_tokens import MarkedTokens

ALIGNED = ("aligned_words", "aligned_start_s", "aligned_end_s")
"""Fields of an item with the words that an aligner placed, in front of what the corpus says."""


class TimedTokens(NamedTuple):
    """Tokens of a text, and from when to when each is said, in seconds."""

    ids: Int[np.ndarray, "L"]
    spans_s: Float[np.ndarray, "L 2"]


@dataclasses.dataclass(frozen=True)
class AlignedSpeechExample(SpeechPromptExample):
    """`SpeechPromptExample` with more arrays.

    `form`: the row in writing has it in the place of clips (`data.examples.described_tasks`), up to `beside` ids:
    `text_ids`, `text_mask`, `text_weight` [beside]. `said`: up to so many tokens of what is said, `token_ids`,
    `token_mask` [said], with `timed` also `token_spans` [said, 2] in frames of `frame_s` seconds.
    """

    form: str | None = None
    beside: int = 0
    said: int = 0
    timed: bool = False
    frame_s: float = 0.02

    def arrays(self, item: Item, said: Conversation) -> dict[str, np.ndarray]:
        row = super().arrays(item, said)
        if self.form is not None:
            row |= self._beside(item, said)
        return row | self._tokens(item) if self.said else row

    def _asked(self, item: Item, rng: np.random.Generator) -> tuple[Conversation | None, str | None]:
        said, reason = super()._asked(item, rng)
        return said, reason if said is None or reason is not None else self._unaligned(item, said)

    def _unaligned(self, item: Item, said: Conversation) -> str | None:
        """Why an item has not what alignment wants; None where it has."""
        if self.form is not None:
            entries = self._written_row(item, said)
            if entries is None:
                return "nothing is known that could be written in the place of the clip"
            if len(entries.ids) > self.beside:
                return f"the row in writing is longer than {self.beside} ids"
        if not self.said:
            return None
        clips = read_of(item, said)
        if len(clips) != 1 or len(clips[0]) != len(item["samples"]):
            return "the tokens of a stretch of a recording are not known: one whole recording is heard"
        tokens = self._timed(item)
        if tokens is None:
            return "nobody knows when its tokens are said" if self.timed else "nobody knows what is said"
        return f"more than {self.said} tokens are said" if len(tokens.ids) > self.said else None

    def _written_row(self, item: Item, said: Conversation) -> Entries | None:
        assert self.form is not None  # for the type checker
        written = described(said, item, self.form)
        if written is None:
            return None
        entries = self.layout.entries(written, answered=True)
        return entries.where(~entries.learnt) if self.written is not None else entries

    def _beside(self, item: Item, said: Conversation) -> dict[str, np.ndarray]:
        entries = self._written_row(item, said)
        assert entries is not None  # it was asked for before
        count = len(entries.ids)
        row = {"text_ids": np.pad(entries.ids, (0, self.beside - count)), "text_mask": np.arange(self.beside) < count}
        weight = np.pad(entries.learnt.astype(np.float32), (0, self.beside - count))
        return row if self.written is not None else {**row, "text_weight": weight}

    def _tokens(self, item: Item) -> dict[str, np.ndarray]:
        tokens = self._timed(item)
        assert tokens is not None  # it was asked for before
        missing = self.said - len(tokens.ids)
        row = {
            "token_ids": np.pad(tokens.ids, (0, missing)).astype(np.int32),
            "token_mask": np.arange(self.said) < len(tokens.ids),
        }
        spans = np.pad(tokens.spans_s / self.frame_s, ((0, missing), (0, 0))).astype(np.float32)
        return {**row, "token_spans": spans} if self.timed else row

    def _timed(self, item: Item) -> TimedTokens | None:
        text, tokens = str(item.get("text") or ""), self.layout.tokens
        if not text:
            return None
        if not self.timed:
            ids = np.array(tokens.encode(text), np.int32)
            return TimedTokens(ids, np.zeros((len(ids), 2), np.float32))
        times = times_of(item)
        return None if times is None else timed_tokens(text, times, tokens)


def times_of(item: Item) -> TimedWords | None:
    """When the words of an item are said: as an aligner placed them, else as the corpus knows it."""
    if ALIGNED[0] not in item:
        return words_of(item)
    words, start_s, end_s = (item[name] for name in ALIGNED)
    return TimedWords(tuple(words), start_s, end_s, np.zeros(len(words), int)) if len(words) else None


def timed_tokens(text: str, times: TimedWords, tokens: MarkedTokens) -> TimedTokens | None:
    """The tokens of a text in time: those of a word share its stretch evenly.

    None where there are other words than stand between the spaces of the text, or where a token reaches over a space.
    """
    words = text.split()
    if len(words) != len(times.words):
        return None
    whole = tokens.encode(text)
    for space in (" ", ""):  # a token brings the space before it, or stands for a word by itself
        pieces = [tokens.encode(f"{space if place else ''}{word}") for place, word in enumerate(words)]
        if [token for piece in pieces for token in piece] == whole:
            stretches = zip(times.start_s, times.end_s, pieces, strict=True)
            spans = [_shares(float(start), float(end), len(piece)) for start, end, piece in stretches]
            return TimedTokens(np.array(whole, np.int32), np.concatenate(spans).astype(np.float32))
    return None


def _shares(start_s: float, end_s: float, count: int) -> Float[np.ndarray, "count 2"]:
    edges = np.linspace(start_s, end_s, count + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)
