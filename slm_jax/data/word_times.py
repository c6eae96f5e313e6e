"""When the words of an item are said: as the world knows it, or as a manifest's rows tell.

A row of a manifest has its words in a field `words`, as transcribers and aligners write them:

    {"audio_filepath": "a.wav", "words": [{"word": "hello", "start": 0.31, "end": 0.62}, ...]}

with `channel` where there are several, or in `alignments` as Moshi's fine-tuning data has them, `[word, [start, end],
speaker]`, where SPEAKER_MAIN is channel 0.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import UserError

MAIN = "SPEAKER_MAIN"


class TimedWords(NamedTuple):
    """Words in the order of their beginnings, in seconds, and the channel on which each is said."""

    words: tuple[str, ...]
    start_s: Float[np.ndarray, "W"]
    end_s: Float[np.ndarray, "W"]
    channel: Int[np.ndarray, "W"]

    def on(self, channel: int) -> "TimedWords":
        """Those of one channel."""
        kept = np.flatnonzero(self.channel == channel)
        return TimedWords(tuple(self.words[i] for i in kept), *(column[kept] for column in self[1:]))


def words_of(item: dict[str, Any]) -> TimedWords | None:
    """The words of an item; None where nobody knows when they are said.

    Raises `UserError` that names the item for words that are not in either form, or end before they begin.
    """
    if "word_start_s" in item:
        return _sorted(item["words"], item["word_start_s"], item["word_end_s"], _channels(item))
    extra = item.get("extra") or {}
    told = extra.get("words") or extra.get("alignments") if isinstance(extra, dict) else None
    if not told:
        return None
    try:
        rows = [_row(one) for one in told]
    except (KeyError, TypeError, ValueError) as error:
        rule = "each is {word, start, end} or [word, [start, end], speaker]"
        raise UserError(f"words of item {item['id']!r} are {str(told)[:80]!r}: {rule}") from error
    backwards = [row for row in rows if not row[1] <= row[2]]
    if backwards:
        raise UserError(f"words of item {item['id']!r} are {backwards[0]!r}: a word ends after it begins")
    return _sorted(*zip(*rows, strict=True))


def _row(one: Any) -> tuple[str, float, float, int]:
    if isinstance(one, dict):
        return str(one["word"]).strip(), float(one["start"]), float(one["end"]), int(one.get("channel", 0))
    word, (start, end), speaker = one
    return str(word).strip(), float(start), float(end), int(speaker != MAIN)


def _channels(item: dict[str, Any]) -> list[int]:
    """On which channel each word of an item of the world is said."""
    turns, spoken = item.get("turns", ()), item.get("word_turn")
    return [0] * len(item["words"]) if spoken is None else [turns[turn]["channel"] for turn in spoken]


def _sorted(words: Any, start_s: Any, end_s: Any, channel: Any) -> TimedWords:
    """A remark is said while a turn goes on: what stands turn by turn is put in time's order."""
    order = np.argsort(np.asarray(start_s, float), kind="stable")
    columns = (np.asarray(start_s, float)[order], np.asarray(end_s, float)[order], np.asarray(channel, int)[order])
    return TimedWords(tuple(words[i] for i in order), *columns)
