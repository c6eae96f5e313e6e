"""A conversation as an item of a corpus: its clips end to end, its turns beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.messages import Conversation, Speech, Text, Turn
from slm_jax.data.corpora.conversations import to_text

COLUMNS = ("id", "kind", "speaker", "seconds")
"""What the index of a corpus keeps of every item."""


def conversation_row(
    said: Conversation,
    rate_hz: int,
    *,
    id: str,
    kind: str,
    words: Sequence[str] | None = None,
    answer: str = "",
    speaker: str = "",
    lang: str = "",
    of: str = "",
) -> dict[str, Any]:
    """The item that `core.messages.conversation` turns into the same conversation again, to the last sample of int16.

    `words`: what is said in the clips, in their order, where that is known. `answer`: the word that a right answer
    holds. `of`: the item that it was made of.
    """
    clips = [clip.samples for message in said for clip in message.speech]
    samples = np.concatenate([_int16(clip) for clip in clips] or [np.zeros(0, np.int16)])
    known: Sequence[str | None] = words or [None] * len(clips)
    rest, start, turns = iter(known), 0, list[Turn]()
    for message in said:
        for part in message.parts:
            end = start + len(part.samples) if isinstance(part, Speech) else start
            turns.append(_turn(message.role, part, start / rate_hz, end / rate_hz, next(rest) if end > start else None))
            start = end
    if answer and turns[-1].role == "assistant":
        turns[-1] = Turn(**{**turns[-1].to_json(), "answer": answer})
    heard = " ".join(turn.text for turn in turns if turn.is_heard and turn.text)
    told = {"id": id, "kind": kind, "text": heard, "speaker": speaker, "lang": lang, "of": of}
    return told | {"seconds": len(samples) / rate_hz, "samples": samples, "messages": to_text(turns)}


def _turn(role: str, part: Speech | Text, start_s: float, end_s: float, words: str | None) -> Turn:
    if isinstance(part, Text):
        return Turn(role, part.text)
    return Turn(role, words, start_s=start_s, end_s=end_s)


def _int16(samples: Float[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """The inverse of `data.passes.float_samples`."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
