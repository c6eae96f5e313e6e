"""Messages of a manifest: turns beside a recording, or a conversation of clips and texts in NeMo's form."""

import json
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from slm_jax.core.errors import UserError
from slm_jax.core.messages import ROLES, Turn

REASONS = {
    "bad_messages": "messages or conversations that are no list of turns, or a turn of another form or type",
    "unknown_role": f"a turn of a role other than {', '.join(ROLES)}",
    "bad_times": "a turn that starts before the recording, ends before it starts or after the recording",
    "bad_channel": "a turn on a channel that the corpus does not keep",
    "overlapping_turns": "two turns of one role and speaker at the same time",
}
"""Why an item with messages is rejected."""
SPOKEN_ROLES = {"human": "user", "gpt": "assistant"} | {role: role for role in ROLES}
"""What others call the roles, in lower case."""
TOLERANCE_S = 0.1
"""A turn may end this much after the recording; it is then cut there."""


class BadMessages(ValueError):
    """Messages that cannot be used; `reason` is a key of `REASONS`, or one of a manifest's line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Clip(NamedTuple):
    """A stretch of a file that one turn of a conversation is heard in; `duration_s` None: to the end of the file."""

    path: str
    offset_s: float = 0.0
    duration_s: float | None = None


def turns_of(value: Any) -> tuple[Turn, ...]:
    """The turns of a manifest's `messages`, each an object as `Turn.to_json` writes it."""
    if not isinstance(value, list) or not value:
        raise BadMessages("bad_messages", f"messages is {_short(value)}: a list of turns is needed")
    turns = tuple(_turn(row) for row in value)
    for one, other in combinations([turn for turn in turns if turn.is_heard], 2):
        _refuse_overlap(one, other)
    return turns


def nemo_turns(value: Any) -> tuple[tuple[Turn, Clip | None], ...]:
    """The turns of a manifest's `conversations`, each with the clip it is heard in; times are not known yet.

    A turn has `from`, `value` (words, or a path when `type` is "audio"), and for a clip `offset`, `duration` (seconds)
    and `text` (what is said), all three optional. Source: NeMo's multimodal conversations.
    """
    if not isinstance(value, list) or not value:
        raise BadMessages("bad_messages", f"conversations is {_short(value)}: a list of turns is needed")
    found = tuple(_nemo_turn(row) for row in value)
    if all(clip is None for _, clip in found):
        raise BadMessages("bad_messages", "a conversation without a clip: there is nothing to hear")
    return found


def placed(turns: Sequence[Turn], lengths_s: Sequence[float | None]) -> tuple[Turn, ...]:
    """`turns` with the times they get when their clips are laid end to end; None where a turn is only written."""
    found, start = [], 0.0
    for turn, length_s in zip(turns, lengths_s, strict=True):
        if length_s is None:
            found.append(turn)
            continue
        found.append(Turn(turn.role, turn.text, start_s=start, end_s=start + length_s, speaker=turn.speaker))
        start += length_s
    return tuple(found)


def within(turns: Sequence[Turn], seconds: float, channels: int) -> tuple[Turn, ...]:
    """`turns` of a recording of `seconds` and `channels`; raises `BadMessages` for one that lies elsewhere."""
    for turn in turns:
        if turn.is_heard and turn.channel >= channels:
            raise BadMessages("bad_channel", f"channel is {turn.channel}: channels are 0 to {channels - 1}")
        if turn.end_s is not None and turn.end_s > seconds + TOLERANCE_S:
            raise BadMessages("bad_times", f"a turn ends at {turn.end_s:g} s of {seconds:.3f} s")
    return tuple(_cut(turn, seconds) for turn in turns)


def to_text(turns: Sequence[Turn]) -> str:
    """Turns as JSON text, as a corpus keeps them."""
    return json.dumps([turn.to_json() for turn in turns], ensure_ascii=False)


def from_text(text: str) -> tuple[Turn, ...]:
    """The inverse of `to_text`."""
    return tuple(Turn.from_json(row) for row in json.loads(text))


def whole(text: str, speaker: str, seconds: float) -> tuple[Turn, ...]:
    """What an item without messages says: one turn of the user over its whole length."""
    return (Turn("user", text or None, start_s=0.0, end_s=seconds, speaker=speaker),)


def _turn(row: Any) -> Turn:
    if not isinstance(row, dict):
        raise BadMessages("bad_messages", f"a turn is {_short(row)}: an object is needed")
    _role(row.get("role"), ROLES)
    times = [row.get(name) for name in ("start_s", "end_s")]
    numbers = [time for time in times if isinstance(time, int | float) and not isinstance(time, bool)]
    inside = all(map(math.isfinite, numbers)) and (len(numbers) < 2 or 0 <= numbers[0] <= numbers[1])
    if not inside:
        raise BadMessages("bad_times", f"start_s and end_s are {times}: 0 <= start_s <= end_s")
    try:
        return Turn.from_json(row)
    except UserError as error:
        raise BadMessages("bad_messages", str(error)) from error


def _nemo_turn(row: Any) -> tuple[Turn, Clip | None]:
    if not isinstance(row, dict) or not isinstance(row.get("value"), str) or not row["value"].strip():
        raise BadMessages("bad_messages", f"a turn is {_short(row)}: an object with from, value and type is needed")
    said = row.get("from")
    role = _role(said.lower() if isinstance(said, str) else said, SPOKEN_ROLES)
    kind = row.get("type", "text")
    if kind == "text":
        return Turn(SPOKEN_ROLES[role], row["value"]), None
    if kind != "audio":
        raise BadMessages("bad_messages", f"type is {_short(kind)}: text or audio")
    text, offset, duration = row.get("text"), _seconds(row, "offset", 0.0), _seconds(row, "duration", None)
    if "\0" in row["value"] or not (text is None or isinstance(text, str)):
        raise BadMessages("bad_messages", f"a clip is {_short(row)}: paths and texts are texts without NUL")
    assert offset is not None
    heard = Turn(SPOKEN_ROLES[role], text or None, start_s=0.0, end_s=0.0)
    return heard, Clip(row["value"], offset, duration)


def _role(role: Any, known: Any) -> str:
    if not isinstance(role, str) or role not in known:
        raise BadMessages("unknown_role", f"role is {_short(role)}: one of {', '.join(ROLES)}")
    return role


def _seconds(row: dict[str, Any], key: str, default: float | None) -> float | None:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadMessages("bad_messages", f"{key} of a clip is {_short(value)}: a number of seconds is needed")
    if not (math.isfinite(value) and value >= 0 and (key == "offset" or value > 0)):
        raise BadMessages("bad_times", f"{key} of a clip is {value}")
    return float(value)


def _refuse_overlap(one: Turn, other: Turn) -> None:
    same = (one.role, one.speaker, one.channel) == (other.role, other.speaker, other.channel)
    assert one.start_s is not None and one.end_s is not None and other.start_s is not None and other.end_s is not None
    if same and max(one.start_s, other.start_s) < min(one.end_s, other.end_s):
        stretches = f"from {one.start_s:g} to {one.end_s:g} s and from {other.start_s:g} to {other.end_s:g} s"
        raise BadMessages("overlapping_turns", f"{one.role} speaks {stretches}")


def _cut(turn: Turn, seconds: float) -> Turn:
    if turn.start_s is None or turn.end_s is None or turn.end_s <= seconds:
        return turn
    return Turn(**{**turn.to_json(), "start_s": min(turn.start_s, seconds), "end_s": seconds})


def _short(value: Any) -> str:
    return repr(value)[:80]
