"""A model that hears and speaks at once (Moshi, Défossez et al. 2024): whole recordings in, or frame by frame."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from slm_jax.assemblies.codec_tokenizer import BUCKET_S, CodecTokenizer
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.core.types import EMPTY
from slm_jax.data.examples.dialogue_rows import DialogueRowsConfig, without
from slm_jax.generation.advance import decoding
from slm_jax.generation.by_layout import told_row
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.layouts.beside import Beside
from slm_jax.layouts.layout import parted
from slm_jax.layouts.said import Said as SaidText
from slm_jax.serving.code_speech_lm import Ids, rows_filled_in
from slm_jax.serving.duplex import DuplexSession, sides_of
from slm_jax.serving.hearing import only_clips, require_readable
from slm_jax.serving.spelling import Spelling

Said = tuple[Int[np.ndarray, "L"], Ids]
"""Text ids and own codes of one row."""


class DuplexDecoding(Config):
    """How somebody who hears and speaks at once goes on.

    `seconds`: of silence after the clip, in which it may go on speaking. `temperature` and `top_k` of codes (0: any),
    `text_temperature` and `text_top_k` of text; a temperature of 0 takes the likeliest. `seed`: of the rows that a
    session opens. Defaults are Moshi's.
    """

    seconds: float = 4.0
    temperature: float = 0.8
    text_temperature: float = 0.7
    top_k: int = 250
    text_top_k: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seconds >= 0, "seconds", self.seconds, "0 or more")

    def sampling(self, streams: int) -> SamplingConfig:
        """How the entries of a step are drawn."""
        temperatures = (self.text_temperature, *[self.temperature] * (streams - 1))
        top_ks = (self.text_top_k, *[self.top_k] * (streams - 1))
        return SamplingConfig(temperatures=temperatures, top_ks=top_ks, max_new=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuplexSpeechLM:
    """Codec, model and rows (scheme and layout of both sides) of one run.

    A reply is the own side from the first sample of the clip on: what it says while it hears that, and in the silence
    behind it. `decoding`: how it is used unless somebody says otherwise.
    """

    codec: CodecTokenizer
    lm: Any
    lm_params: Any
    rows: DialogueRowsConfig
    decoding: DuplexDecoding = field(default_factory=DuplexDecoding)
    origin: str = "codes"

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech", "text"})

    @property
    def rate_hz(self) -> int:
        """The codec's rate."""
        return self.codec.config.rate_hz

    @property
    def books(self) -> int:
        """Of one side."""
        return len(self.rows.columns) // 2

    def respond(
        self, conversations: Sequence[Conversation], decoding: DuplexDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """Hears the only clip of each conversation and says its part.

        The trace of a reply has `codes` `[T, K]` of the own side and `heard_frames`. `key`: one, split over the
        conversations, or one for each. Raises `UserError` for what cannot be heard.
        """
        how = self.decoding if decoding is None else decoding
        require_readable(conversations, self.reads)
        clips = only_clips(conversations, self.rate_hz)
        silence = np.zeros(round(how.seconds * self.rate_hz), np.float32)
        made = self.beside([np.concatenate([clip, silence]) for clip in clips], how, key)
        frames = [self.codec.frame_count(len(clip)) for clip in clips]
        return [self._reply(one, count) for one, count in zip(made, frames, strict=True)]

    def open(self, batch: int) -> DuplexSession:
        """A session of so many rows, with the system's own decoding and keys from its `seed`."""
        steps = decoding(self.lm, self.decoding.sampling(len(self.rows.columns) + 1))
        spelling = Spelling(self.rows.tokenizer, self.rows.tokenizer.size)
        sides, key = sides_of(self.rows.scheme, self.books), jax.random.key(self.decoding.seed)
        return DuplexSession(self.codec, steps, self.lm_params, sides, spelling, batch, key)

    def beside(
        self,
        clips: Sequence[Float[np.ndarray, "_"]],
        how: DuplexDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Said]:
        """What is written and said beside each clip of the other side."""
        heard = self.codec.encode_rows(clips) if clips else []
        rows = self._filled_in([self._told(np.full_like(codes, -1), codes) for codes in heard], how, key)
        return [self._own(row, len(codes)) for row, codes in zip(rows, heard, strict=True)]

    def continued(
        self,
        own: Sequence[Ids],
        other: Sequence[Ids] | None,
        how: DuplexDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[tuple[Said, Ids]]:
        """Recordings `how.seconds` further: text and codes of the own side, and those of the other one.

        `other` None: nobody else is heard (a model of one side), and its codes are none. Raises `UserError` for sides
        of different lengths, and for a model that does not write the side that it hears.
        """
        written = getattr(self.lm.config, "count", len(self.lm.config.streams))
        both = other is None or written == 1 + 2 * self.books
        require(both, "written", written, "this model does not write the side that it hears")
        more = round(how.seconds * self.codec.spec.frames_per_second)
        sides = list(zip(own, [None] * len(own) if other is None else other, strict=True))
        told = [
            self._told(_open(mine, more), None if theirs is None else _open(theirs, more)) for mine, theirs in sides
        ]
        rows = self._filled_in(told, how, key)
        return [
            (self._own(row, len(mine) + more), self._other(row, len(mine) + more, theirs is not None))
            for row, (mine, theirs) in zip(rows, sides, strict=True)
        ]

    def written(
        self, codes: Sequence[Ids], how: DuplexDecoding, key: Key[Array, ""] | Key[Array, "B"]
    ) -> list[Int[np.ndarray, "L"]]:
        """Text ids of speech that is the own side's: recognition, of a model whose text comes behind its speech."""
        layout = self.rows.layout
        late = max(0, -layout.ahead) if isinstance(layout, Beside) else 0
        told = [self._told(_open(one, late), None) for one in codes]
        rows = self._filled_in(told, how, key)
        return [self._own(row, len(one) + late)[0] for row, one in zip(rows, codes, strict=True)]

    def spoken(
        self,
        texts: Sequence[SaidText],
        frames: Sequence[int],
        how: DuplexDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Ids]:
        """Own codes of speech that says these texts, of so many frames each: synthesis, nobody else being heard."""
        size, nothing = self.rows.tokenizer.size, np.zeros((0, len(self.rows.columns)), int)
        told = [
            without(told_row(self.rows.layout, self.rows.scheme, said, nothing, count, size))
            for said, count in zip(texts, frames, strict=True)
        ]
        rows = self._filled_in(told, how, key)
        return [self._own(row, count)[1] for row, count in zip(rows, frames, strict=True)]

    def _told(self, own: Ids, other: Ids | None) -> Int[np.ndarray, "S K1"]:
        """A row with these codes (-1: to be drawn) whose text is to be drawn."""
        both = np.concatenate([own, np.zeros_like(own) if other is None else other], axis=1)
        ids, valid = self.rows.scheme.arrange_row(both)
        row = np.pad(np.where(valid, ids, EMPTY), ((0, 0), (1, 0)), constant_values=-1).astype(np.int32)
        return without(row) if other is None else row

    def _own(self, row: Int[np.ndarray, "S K1"], frames: int) -> Said:
        text, steps = parted(row, self.rows.tokenizer.size)
        return text, self.rows.scheme.restore_row(steps)[:frames, : self.books]

    def _other(self, row: Int[np.ndarray, "S K1"], frames: int, heard: bool) -> Ids:
        codes = self.rows.scheme.restore_row(row[:, 1:])[:frames, self.books :]
        return codes if heard else codes[:0]

    def _filled_in(
        self,
        told: Sequence[Int[np.ndarray, "_ K1"]],
        how: DuplexDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Int[np.ndarray, "_ K1"]]:
        """Rows without anything that is to be drawn, decoded at few lengths: what is behind a row is cut again."""
        bucket = round(BUCKET_S * self.codec.spec.frames_per_second)
        longer = [self._filled_up(row, -(-len(row) // bucket) * bucket) for row in told]
        made = rows_filled_in(self.lm, self.lm_params, longer, key, how.sampling(1 + len(self.rows.columns)))
        return [row[: len(asked)] for row, asked in zip(made, told, strict=True)]

    def _filled_up(self, row: Int[np.ndarray, "S K1"], steps: int) -> Int[np.ndarray, "S2 K1"]:
        """With steps in which nothing is to stand."""
        return np.pad(row, ((0, steps - len(row)), (0, 0)), constant_values=EMPTY)

    def _reply(self, said: Said, heard: int) -> Reply:
        text, codes = said
        words = self.rows.tokenizer.decode(text.tolist()).strip()
        parts = (Text(words), Speech(self.codec.decode(codes), self.rate_hz))
        return Reply((Message("assistant", parts),), {"heard_frames": heard, "codes": codes})


def _open(codes: Ids, more: int) -> Ids:
    """Codes with frames behind them that are to be drawn."""
    return np.pad(codes, ((0, more), (0, 0)), constant_values=-1)
