"""A cascade: what is said is written down first, and a system that reads words answers to that.

The usual thing to hold a speech-aware language model to: it can use a recogniser and a text model that were never
trained together, and what is not words (who speaks, how) is lost on the way.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.contracts import Reply, System
from slm_jax.core.messages import Conversation, Message, Part, Speech, Text
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.serving.transcriber import Transcriber, Transcription
from slm_jax.text.templates import clips_of


@dataclasses.dataclass(frozen=True)
class Cascade:
    """`transcriber` writes down every clip, `reader` answers the conversations with words in the place of clips."""

    transcriber: Transcriber
    reader: System
    transcription: Transcription | None = None

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})
    rate_hz: ClassVar[int] = Transcriber.rate_hz

    @property
    def decoding(self) -> Any:
        """The reader's."""
        return self.reader.decoding

    def respond(self, conversations: Sequence[Conversation], decoding: Any, key: jax.Array) -> list[Reply]:
        """The reader's replies; their trace has `heard` as well, what was written down of each clip."""
        written = self.written(conversations)
        replies = self.reader.respond(written, decoding, key)
        return [
            reply._replace(trace={**reply.trace, "heard": _new_words(before, after)})
            for reply, before, after in zip(replies, conversations, written, strict=True)
        ]

    def written(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """The conversations with the words of each clip in its place; raises `UserError` for what cannot be heard."""
        require_readable(conversations, self.reads)
        clips = [self._clip(clip, place) for place, one in enumerate(conversations) for clip in clips_of(one)]
        words = iter(self.transcriber.transcribe(clips, self.transcription) if clips else ())

        def part(part: Part) -> Part:
            return Text(next(words).text) if isinstance(part, Speech) else part

        return [
            tuple(Message(message.role, tuple(map(part, message.parts))) for message in one) for one in conversations
        ]

    def _clip(self, clip: Speech, place: int) -> np.ndarray:
        samples = checked(clip.samples, f"conversation {place}: samples")
        return resample(samples, clip.rate_hz, self.rate_hz)


def _new_words(before: Conversation, after: Conversation) -> list[str]:
    """What stands in `after` where `before` has a clip."""
    pairs = zip((part for m in before for part in m.parts), (part for m in after for part in m.parts), strict=True)
    return [new.text for old, new in pairs if isinstance(old, Speech) and isinstance(new, Text)]
