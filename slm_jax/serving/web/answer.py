"""One response from its first event to its last, whether it grows for minutes or is there at once."""

from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.serving.web.events import Event, Ids, added, item
from slm_jax.serving.web.sound import base64_of


class Answer:
    """The events of a response with one message in it. `form`: `audio` (and what is said, in words) or `text`."""

    def __init__(self, ids: Ids, form: str, before: str | None) -> None:
        self.form, self.response, self.item = form, ids.next("resp"), ids.next("item")
        self._before, self._words = before, ""

    def begin(self) -> list[Event]:
        """What comes before any sound or word."""
        message = item(self.item, "assistant", [], "in_progress")
        return [
            {"type": "response.created", "response": self._response("in_progress", [])},
            {"type": "response.output_item.added", **self._place(False), "item": message},
            {"type": "conversation.item.added", "previous_item_id": self._before, "item": message},
            {"type": "response.content_part.added", **self._place(), "part": self._part("")},
        ]

    def sound(self, samples: Float[np.ndarray, "N"], **more: Any) -> list[Event]:
        """Sound that follows, at 24 kHz; nothing where only text is wanted."""
        if self.form == "text" or not len(samples):
            return []
        return [{"type": "response.output_audio.delta", **self._place(), "delta": base64_of(samples), **more}]

    def words(self, text: str) -> list[Event]:
        """Words that follow."""
        self._words += text
        name = "output_text" if self.form == "text" else "output_audio_transcript"
        return [{"type": f"response.{name}.delta", **self._place(), "delta": text}] if text else []

    def end(self, status: str = "completed", fault: str | None = None, **more: Any) -> list[Event]:
        """What comes last. `status`: completed, cancelled or failed, the latter with a `fault`."""
        whole = "completed" if status == "completed" else "incomplete"
        content = {"type": f"output_{self.form}", self._words_field: self._words}
        message = item(self.item, "assistant", [content], whole)
        events: list[Event] = []
        if self.form == "text":
            events.append({"type": "response.output_text.done", **self._place(), "text": self._words})
        else:
            events.append({"type": "response.output_audio.done", **self._place()})
            spoken = {"type": "response.output_audio_transcript.done", **self._place(), "transcript": self._words}
            events.append(spoken)
        return [
            *events,
            {"type": "response.content_part.done", **self._place(), "part": self._part(self._words)},
            {"type": "response.output_item.done", **self._place(False), "item": message},
            *added(message, self._before)[1:],
            {"type": "response.done", "response": self._response(status, [message], fault), **more},
        ]

    @property
    def _words_field(self) -> str:
        return "text" if self.form == "text" else "transcript"

    def _part(self, words: str) -> dict[str, Any]:
        return {"type": self.form, self._words_field: words}

    def _place(self, in_content: bool = True) -> dict[str, Any]:
        """Which response an event belongs to, and where in it."""
        place = {"response_id": self.response, "output_index": 0}
        return {**place, "item_id": self.item, "content_index": 0} if in_content else place

    def _response(self, status: str, output: list[dict[str, Any]], fault: str | None = None) -> dict[str, Any]:
        details: dict[str, Any] | None = None if status == "in_progress" else {"type": status}
        if status == "cancelled":
            details = {"type": status, "reason": "client_cancelled"}
        elif fault is not None:
            details = {"type": status, "error": {"type": "server_error", "code": "no_reply", "message": fault}}
        return {
            "id": self.response,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": output,
            "output_modalities": [self.form],
            "usage": None,
        }
