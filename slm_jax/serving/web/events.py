"""Events of a client as they are read, and the parts that events of the server are made of.

Names and fields are those of the types in OpenAI's Python package (`openai.types.realtime`).
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

Event = dict[str, Any]


class Refused(Exception):
    """What a client did wrong. `code` is for programs, the message for people, `param` names the field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def read_event(text: str) -> Event:
    """The event in a message; raises `Refused` for what is no JSON object with a `type`."""
    try:
        event = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused("invalid_json", f"the message is no JSON: {error}") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise Refused("invalid_event", "an event is a JSON object with a type", "type")
    return event


def error_event(error: Exception, cause: Event | None = None) -> Event:
    """The one event that says what is wrong; `cause` is the event it answers."""
    refused = isinstance(error, Refused)
    said = cause.get("event_id") if cause else None
    told = {
        "type": "invalid_request_error" if refused else "server_error",
        "code": error.code if refused else "server_error",  # type: ignore[attr-defined]
        "message": str(error),
        "param": error.param if refused else None,  # type: ignore[attr-defined]
        "event_id": said if isinstance(said, str) else None,
    }
    return {"type": "error", "error": told}


class Ids:
    """Names of events, items and responses of one session."""

    def __init__(self) -> None:
        self._counts: dict[str, Iterator[int]] = {}

    def next(self, kind: str) -> str:
        """`item_1`, `item_2` ..."""
        return f"{kind}_{next(self._counts.setdefault(kind, itertools.count(1)))}"


def item(name: str, role: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    """A message of the conversation."""
    return {
        "id": name,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }


def added(one: dict[str, Any], before: str | None) -> list[Event]:
    """An item that is in the conversation, whole."""
    return [
        {"type": f"conversation.item.{what}", "previous_item_id": before, "item": one} for what in ("added", "done")
    ]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
