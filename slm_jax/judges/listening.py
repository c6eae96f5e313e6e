"""Somebody who listens to what a system says: real Whisper, where it is there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_jax.audio.files import resample
from slm_jax.core.errors import UserError
from slm_jax.serving.transcriber import Transcription, load_transcriber
from slm_jax.training.stages import StageContext


def written_down(
    sounds: dict[str, list[np.ndarray]], rate_hz: int, whisper: str, language: str, context: StageContext
) -> dict[str, list[str]]:
    """What Whisper makes of each clip (at `rate_hz`, Hz); nothing where there is no Whisper, which is said."""
    try:
        listener = load_transcriber(whisper, Transcription(language=language))
    except UserError as error:
        context.say(f"words that are spoken are not counted: {error}")
        return {}
    return {
        name: understood(listener, [resample(one, rate_hz, listener.rate_hz) for one in some])
        for name, some in sounds.items()
    }


def understood(listener: Any, clips: Sequence[np.ndarray]) -> list[str]:
    """What is written of each clip, nothing of one that is empty."""
    full = [clip for clip in clips if len(clip)]
    texts = iter(found.text for found in listener.transcribe(full)) if full else iter(())
    return [next(texts) if len(clip) else "" for clip in clips]
