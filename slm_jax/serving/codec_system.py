"""A codec as a system: what is said comes back as its codes have it."""

from collections.abc import Sequence
from typing import ClassVar

import jax

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.serving.codec_echo import CodecEcho
from slm_jax.serving.hearing import only_clips, require_readable


class CodecDecoding(Config):
    """`books`: how many codebooks are listened to, None for all that the codec was opened with."""

    books: int | None = None


class CodecSystem:
    """One clip in, the same from its codes out; the trace has the codes."""

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech"})

    def __init__(self, tokenizer: CodecTokenizer, decoding: CodecDecoding = CodecDecoding()) -> None:
        self.tokenizer, self.decoding, self.rate_hz = tokenizer, decoding, tokenizer.config.rate_hz

    def respond(
        self, conversations: Sequence[Conversation], decoding: CodecDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """The clip of each conversation again; `key` is not needed, since nothing is drawn."""
        require_readable(conversations, self.reads)
        how = self.decoding if decoding is None else decoding
        columns = self.tokenizer.config.quantizer.columns(how.books)
        replies = []
        for samples in only_clips(conversations, self.rate_hz):
            ids = self.tokenizer.encode(samples)[:, :columns]
            sound = self.tokenizer.decode(ids, len(samples))
            replies.append(Reply((Message("assistant", (Speech(sound, self.rate_hz),)),), {"codes": ids}))
        return replies

    def open(self, batch: int) -> CodecEcho:
        """Everybody hears what the codec makes of them; raises `UserError` where it is not causal."""
        books = self.tokenizer.books if self.decoding.books is None else self.decoding.books
        return CodecEcho(self.tokenizer.config, self.tokenizer.variables, batch, books)
