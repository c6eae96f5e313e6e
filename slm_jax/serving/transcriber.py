"""Whisper as a system: speech in, its words out, in the language spoken or in English."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from slm_jax.assemblies.whisper import WhisperConfig
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.generation.whisper_reader import RATE_HZ
from slm_jax.generation.whisper_words import Transcript, Transcription, WhisperWriter
from slm_jax.interop.parts import existing, open_source
from slm_jax.nn.dtypes import compute_dtype
from slm_jax.serving.hearing import checked, only_clips, require_readable
from slm_jax.text.whisper_tokens import WhisperTokens


class Transcriber(WhisperWriter):
    """A Whisper model with its tokens, whose rows do not depend on what they are read with."""

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})
    rate_hz: ClassVar[int] = RATE_HZ

    def respond(
        self, conversations: Sequence[Conversation], decoding: Transcription | None, key: jax.Array
    ) -> list[Reply]:
        """The words of the one clip of each conversation; nothing is drawn, so that `key` has no effect."""
        require_readable(conversations, self.reads)
        found = self.transcribe(only_clips(conversations, RATE_HZ), decoding)
        return [Reply((Message("assistant", (Text(one.text),)),), {"language": one.language}) for one in found]

    def transcribe(
        self, clips: Sequence[Float[np.ndarray, "_"]], decoding: Transcription | None = None
    ) -> list[Transcript]:
        """Clips `[N]` at 16 kHz written down; raises `UserError` for an empty clip and for NaN as well."""
        return super().transcribe([checked(clip, f"clip {place}") for place, clip in enumerate(clips)], decoding)


def load_transcriber(
    source: str | Path, decoding: Transcription = Transcription(), dtype: str = "float32"
) -> Transcriber:
    """A Whisper model from a hub folder, one of ours, or `hub:NAME`, whose weights and sums are in `dtype`.

    Raises `UserError` for another kind of model.
    """
    config, stored = open_source(str(source), "model")
    if not isinstance(config, WhisperConfig):
        raise UserError(f"model is {str(source)!r}: it holds a {type(config).__name__}, and a Whisper model is needed")
    config = config.replace(encoder=config.encoder.replace(dtype=dtype), decoder=config.decoder.replace(dtype=dtype))
    tokens = WhisperTokens(existing(str(source), "model"))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, compute_dtype(dtype)), stored)
    return Transcriber(config, params, tokens, decoding)
