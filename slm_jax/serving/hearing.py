"""What a system asks of conversations before it listens, so that a mistake is one clear sentence."""

from collections.abc import Sequence

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message


def require_readable(conversations: Sequence[Conversation], reads: frozenset[str]) -> None:
    """Raise `UserError` unless these are conversations that hold only what the system reads."""
    several = isinstance(conversations, list | tuple)
    require(several, "conversations", type(conversations).__name__, "a list of tuples of messages")
    for place, one in enumerate(conversations):
        name, kind = f"conversation {place}", type(one).__name__
        messages = isinstance(one, tuple | list) and len(one) > 0 and all(isinstance(part, Message) for part in one)
        require(messages, name, kind, "a conversation is a tuple of messages, and there is a list of them")
        others = sorted(frozenset[str]().union(*(message.kinds for message in one)) - reads)
        if others:
            raise UserError(
                f"{name} holds {' and '.join(others)}: this system reads {' and '.join(sorted(reads))} only"
            )


def only_clips(conversations: Sequence[Conversation], rate_hz: int) -> list[np.ndarray]:
    """The one clip `[N]` of each conversation, float32 at `rate_hz` (Hz); raises `UserError` for more and for none.

    Speech at another rate is resampled (soxr, high quality).
    """
    clips = []
    for place, one in enumerate(conversations):
        name, speech = f"conversation {place}", [clip for message in one for clip in message.speech]
        require(len(one) == 1 and len(speech) == 1, name, f"{len(speech)} clips in {len(one)} messages", "one is read")
        samples = checked(speech[0].samples, f"{name}: samples")
        clips.append(resample(samples, speech[0].rate_hz, rate_hz))
    return clips


def checked(samples: np.ndarray, name: str) -> np.ndarray:
    """`samples` as a float32 vector; raises `UserError` for another rank or dtype, for none, for NaN and infinity."""
    samples = np.asarray(samples)
    require(samples.ndim == 1, name, samples.shape, "one channel, a vector")
    require(np.issubdtype(samples.dtype, np.floating), name, str(samples.dtype), "floating point in [-1, 1]")
    require(len(samples) > 0, name, "empty", "there must be something to hear")
    require(bool(np.isfinite(samples).all()), name, "not finite", "no NaN and no infinity")
    return samples.astype(np.float32, copy=False)
