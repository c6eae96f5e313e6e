"""A speech-aware text LM that reads a transcript beside what it hears, written down by somebody else (LTU-AS)."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Conversation, Speech
from slm_jax.data.examples.transcript_tasks import with_transcript
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.serving.speech_aware import SpeechAwareSystem
from slm_jax.text.templates import clips_of

Writes = Callable[[Sequence[np.ndarray]], list[str]]
"""From clips `[N]` at the rate of the system to what is said in each."""


@dataclasses.dataclass(frozen=True)
class Transcribed:
    """`listener` answers; a conversation in which nobody of the system says anything first gets what `writes` heard."""

    listener: SpeechAwareSystem
    writes_down: Writes

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})

    @property
    def rate_hz(self) -> int:
        """The listener's."""
        return self.listener.rate_hz

    @property
    def decoding(self) -> Any:
        """The listener's."""
        return self.listener.decoding

    def respond(self, conversations: Sequence[Conversation], decoding: Any, key: jax.Array) -> list[Reply]:
        """The listener's replies; their trace has `heard` as well, the transcript that was read."""
        told = self.told(conversations)
        replies = self.listener.respond(told, decoding, key)
        return [
            reply._replace(trace={**reply.trace, "heard": _transcript(one)})
            for reply, one in zip(replies, told, strict=True)
        ]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every id of each last message, its end included."""
        require_readable(conversations, self.reads)
        asked = self.told([one[:-1] for one in conversations])
        return self.listener.log_prob([(*told, one[-1]) for told, one in zip(asked, conversations, strict=True)])

    def told(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """The conversations with transcripts; raises `UserError` for what cannot be heard."""
        require_readable(conversations, self.reads)
        untold = [place for place, one in enumerate(conversations) if clips_of(one) and not _transcript(one)]
        clips = [self._clip(clip, place) for place in untold for clip in clips_of(conversations[place])]
        words = iter(self.writes_down(clips) if clips else ())
        found = list(conversations)
        for place in untold:
            one = conversations[place]
            found[place] = with_transcript(one, [next(words) for _ in clips_of(one)])
        return found

    def _clip(self, clip: Speech, place: int) -> np.ndarray:
        samples = checked(clip.samples, f"conversation {place}: samples")
        return resample(samples, clip.rate_hz, self.rate_hz)


def _transcript(conversation: Conversation) -> str:
    return " ".join(message.text for message in conversation if message.role == "system")
