"""What the events of a client mean: the part that is the same whatever the system."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from slm_jax.core.errors import UserError
from slm_jax.serving.web.events import Event, Ids, Refused, added, error_event, item, read_event
from slm_jax.serving.web.settings import SessionSettings
from slm_jax.serving.web.sound import samples_of


@runtime_checkable
class Side(Protocol):
    """What a talk asks of the engine behind it; `serving.web.open_talk` and `serving.web.turn_talk` are two.

    Methods raise `Refused`, or `UserError`, for what cannot be; then nothing has changed.
    """

    @property
    def lost(self) -> str | None:
        """Why it is over, None while it is not."""
        ...

    def join(self, talk: "Talk") -> None: ...
    def hear(self, samples: Float[np.ndarray, "N"]) -> None: ...
    def commit(self) -> None: ...
    def clear(self) -> None: ...
    def read(self, content: list[Any]) -> list[dict[str, Any]]: ...
    def create(self) -> None: ...
    def cancel(self) -> None: ...
    def events(self) -> Iterator[Event]: ...
    def leave(self) -> None: ...


class Talk:
    """One client's session: events in (`take`), events out (`events`)."""

    def __init__(self, settings: SessionSettings, side: Side, ids: Ids) -> None:
        self.settings, self.side, self.ids = settings, side, ids
        self.last_item: str | None = None
        self._out: deque[Event] = deque([{"type": "session.created", "session": settings.as_json()}])
        side.join(self)

    def take(self, text: str) -> None:
        """Does what a message says; what is wrong with it becomes an event."""
        event: Event | None = None
        try:
            event = read_event(text)
            self._do(event)
        except Refused as error:
            self.tell(error_event(error, event))
        except UserError as error:
            self.tell(error_event(Refused("invalid_value", str(error)), event))

    def tell(self, *events: Event) -> None:
        """Events that go out before anything else."""
        self._out.extend(events)

    def events(self) -> Iterator[Event]:
        """What there is to send now."""
        while self._out:
            yield self._out.popleft()
        for event in self.side.events():
            yield event
            while self._out:
                yield self._out.popleft()

    @property
    def waiting(self) -> int:
        """Events that nobody has fetched, of the talk itself."""
        return len(self._out)

    def committed(self) -> None:
        """The sound that was heard is an item."""
        name = self.ids.next("item")
        self.tell({"type": "input_audio_buffer.committed", "previous_item_id": self.last_item, "item_id": name})
        self._add(name, [{"type": "input_audio", "transcript": None}])

    def _add(self, name: str, content: list[dict[str, Any]]) -> None:
        """A new item of the user at the end of the conversation."""
        self.tell(*added(item(name, "user", content), self.last_item))
        self.last_item = name

    def _do(self, event: Event) -> None:
        kind = event["type"]
        if kind == "session.update":
            self.settings.update(event.get("session"))
            self.tell({"type": "session.updated", "session": self.settings.as_json()})
        elif kind == "input_audio_buffer.append":
            self.side.hear(samples_of(event.get("audio")))
        elif kind == "input_audio_buffer.commit":
            self.side.commit()
        elif kind == "input_audio_buffer.clear":
            self.side.clear()
            self.tell({"type": "input_audio_buffer.cleared"})
        elif kind == "conversation.item.create":
            self._read(event.get("item"))
        elif kind == "response.create":
            self.side.create()
        elif kind == "response.cancel":
            self.side.cancel()
        else:
            raise Refused("unknown_event", f"there is no event {kind!r} here", "type")

    def _read(self, one: Any) -> None:
        """An item that a client wrote."""
        good = isinstance(one, dict) and one.get("type") == "message" and isinstance(one.get("content"), list)
        if not good:
            raise Refused("invalid_value", "item must be a message with a list of contents", "item")
        if one.get("role") != "user":
            raise Refused("unsupported_item", f"item.role is {one.get('role')!r}: only a user is read", "item.role")
        if not one["content"]:
            raise Refused("invalid_value", "item.content is empty", "item.content")
        self._add(self.ids.next("item"), self.side.read(one["content"]))
