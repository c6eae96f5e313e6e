"""What is said in an item, utterance by utterance: words with their times, and ids of its speech."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.messages import Turn
from slm_jax.data.word_times import words_of

Item = dict[str, Any]
Column = Int[np.ndarray, "_"] | None
COUNTS = "{}_counts"
"""The column that says how many ids of another each heard turn has; without it the column is of all that is heard."""


class Utterance(NamedTuple):
    """`columns`: the ids of each stream, None where it is not heard. `words` are known with their times or not at all.

    Times are seconds from where the utterance begins.
    """

    text: str | None
    columns: tuple[Column, ...]
    words: tuple[str, ...] = ()
    start_s: Float[np.ndarray, "W"] = np.zeros(0)
    end_s: Float[np.ndarray, "W"] = np.zeros(0)


class SpokenItem(NamedTuple):
    """All of an item as one utterance, and its last question with the answer to it; None where it has none."""

    whole: Utterance | None
    asked: Utterance | None
    answered: Utterance | None


def spoken_item(item: Item, streams: Sequence[tuple[str, float]]) -> SpokenItem:
    """`streams`: a column of the item and its rate (ids per second) for each stream."""
    turns: Sequence[Turn] = item["messages"]
    places = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.text]
    asked = [i for i in range(places[-1]) if turns[i].role == "user"] if places else []
    heard = [i for i in asked if turns[i].is_heard] or asked
    pair = (_turn(item, streams, heard[-1]), _turn(item, streams, places[-1])) if heard else (None, None)
    return SpokenItem(_whole(item, streams), *pair)


def _whole(item: Item, streams: Sequence[tuple[str, float]]) -> Utterance | None:
    columns = tuple(_or_none(item.get(column)) for column, _ in streams)
    text = item.get("text") or None
    if any(COUNTS.format(column) in item for column, _ in streams) and sum(t.is_heard for t in item["messages"]) != 1:
        return Utterance(text, columns)  # turns end to end, without the pauses: times are not those of the item
    timed = _timed(item)
    return Utterance(text, columns, *_words(timed, text, np.ones(len(timed.words), bool), 0.0))


def _turn(item: Item, streams: Sequence[tuple[str, float]], place: int) -> Utterance:
    """One turn, whose ids lie apart in the columns that have counts; in others they are cut out by its times."""
    turn: Turn = item["messages"][place]
    if turn.start_s is None:
        return Utterance(turn.text, (None,) * len(streams))
    number = sum(one.is_heard for one in item["messages"][:place])
    columns = tuple(_cut(item, column, rate, number, turn) for column, rate in streams)
    timed = _timed(item)
    own = (timed.start_s >= turn.start_s) & (timed.start_s < turn.end_s)
    if "word_turn" in item:  # turns may overlap
        own = np.asarray(item["word_turn"]) == number
    return Utterance(turn.text, columns, *_words(timed, turn.text, own, turn.start_s))


def _cut(item: Item, column: str, rate: float, number: int, turn: Turn) -> Column:
    ids, counts = _or_none(item.get(column)), item.get(COUNTS.format(column))
    if ids is None or turn.start_s is None or turn.end_s is None:
        return None
    if counts is None:
        return ids[round(turn.start_s * rate) : round(turn.end_s * rate)]
    first = int(np.sum(counts[:number]))
    return ids[first : first + int(counts[number])]


class _Timed(NamedTuple):
    """All words of an item and when they are heard (seconds); none where that is not known."""

    words: tuple[str, ...]
    start_s: np.ndarray
    end_s: np.ndarray


def _timed(item: Item) -> _Timed:
    """The world has times of its own; a manifest has them among its other keys (`data.word_times`)."""
    extra = item.get("extra")
    known = {**(extra if isinstance(extra, dict) else {}), **item}
    if "word_start_s" not in known or "word_end_s" not in known:
        told = words_of(item)
        return _Timed((), np.zeros(0), np.zeros(0)) if told is None else _Timed(*told[:3])
    start, end = (np.asarray(known[name], np.float64) for name in ("word_start_s", "word_end_s"))
    return _Timed(tuple(known["words"]), start, end)


def _words(
    timed: _Timed, text: str | None, own: np.ndarray, begins_s: float
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Words as they are written, where the text has as many, and their times."""
    spoken = [word for word, mine in zip(timed.words, own, strict=True) if mine]
    written = (text or "").split()
    words = tuple(written if len(written) == len(spoken) else spoken)
    return words, timed.start_s[own] - begins_s, timed.end_s[own] - begins_s


def _or_none(ids: Any) -> Column:
    return None if ids is None else np.asarray(ids)
