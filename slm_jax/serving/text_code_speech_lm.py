"""A language model of text and codes, in any layout and scheme: it writes what it hears and goes on in both."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.examples.text_code_rows import TextCodeRowsConfig
from slm_jax.generation.advance import decoding
from slm_jax.generation.by_layout import told_row
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.layouts.beside import Beside
from slm_jax.layouts.interleaved import Interleaved
from slm_jax.layouts.layout import parted
from slm_jax.layouts.said import Said, said_of
from slm_jax.serving.code_speech_lm import Ids, by_length, codes_of, rows_filled_in
from slm_jax.serving.turns import in_turns

Written = tuple[Int[np.ndarray, "L"], Ids]
"""Text ids and codes of one row."""
NOBODY = said_of([], np.zeros((0, 2), int))


class TextCodeDecoding(Config):
    """How a language model of text and codes goes on.

    `seconds`: of new sound; 0: it only writes what it hears. `temperature` of codes, `text_temperature` of text; 0
    takes the likeliest. `with_prompt`: the sound of a reply begins with the clip, as its codes have it.
    """

    seconds: float = 3.0
    temperature: float = 0.8
    text_temperature: float = 0.0
    top_k: int | None = None
    with_prompt: bool = True

    def __post_init__(self) -> None:
        require(self.seconds >= 0, "seconds", self.seconds, "0 or more")

    def sampling(self, books: int) -> SamplingConfig:
        """How the entries of a step are drawn."""
        temperatures = (self.text_temperature, *[self.temperature] * books)
        return SamplingConfig(temperatures=temperatures, top_k=self.top_k, max_new=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextCodeSpeechLM:
    """Codec, model and rows (layout and scheme) of one run.

    A reply has what is written in its text and, where there is new sound, that in its speech. Where text and speech
    take turns, the clip is heard first, and then the model takes them.
    `decoding` and `prompt_s` (seconds of speech to go on from): how it is used unless somebody says otherwise.
    """

    codec: CodecTokenizer
    lm: Any
    lm_params: Any
    rows: TextCodeRowsConfig
    decoding: TextCodeDecoding = field(default_factory=TextCodeDecoding)
    prompt_s: float | int = 3.0
    origin: str = "codes"

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech", "text"})

    @property
    def rate_hz(self) -> int:
        """The codec's rate."""
        return self.codec.config.rate_hz

    def respond(
        self, conversations: Sequence[Conversation], decoding: TextCodeDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """Hears the only clip of each conversation, writes what is said in it and goes on.

        The trace of a reply has `prompt_frames` and `codes` `[T, K]`. `key`: one, split over the conversations, or one
        for each. Raises `UserError` for what cannot be heard.
        """
        how = self.decoding if decoding is None else decoding
        prompts = codes_of(self.codec, conversations, self.reads)
        made = self.written(prompts, how, key)
        return [self._reply(one, len(prompt), how) for one, prompt in zip(made, prompts, strict=True)]

    def written(
        self, prompts: Sequence[Ids], how: TextCodeDecoding, key: Key[Array, ""] | Key[Array, "B"]
    ) -> list[Written]:
        """What is written beside each prompt and what follows it, and the codes of both."""
        more = round(how.seconds * self.codec.spec.frames_per_second)
        if isinstance(self.rows.layout, Interleaved):
            drawn = self._in_turns(prompts, more, how, key)
        else:
            drawn = self._filled_in([self._told(codes, len(codes) + more) for codes in prompts], how, key)
        return [self._content(row, len(codes) + more) for row, codes in zip(drawn, prompts, strict=True)]

    def spoken(
        self,
        texts: Sequence[Said],
        frames: Sequence[int],
        how: TextCodeDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Ids]:
        """Codes of speech that says these texts, of so many frames each. Any layout; one that aligns words needs the
        frames of their words."""
        rows, size = self.rows, self.rows.tokenizer.size
        nothing = np.zeros((0, len(rows.columns)), int)
        asked = zip(texts, frames, strict=True)
        told = [told_row(rows.layout, rows.scheme, said, nothing, count, size) for said, count in asked]
        drawn = self._filled_in(told, how, key)
        return [self._content(row, count)[1] for row, count in zip(drawn, frames, strict=True)]

    def _in_turns(
        self, prompts: Sequence[Ids], more: int, how: TextCodeDecoding, key: Key[Array, ""] | Key[Array, "B"]
    ) -> list[Int[np.ndarray, "_ K1"]]:
        """Rows that begin with the prompts; those of one length go together."""
        keys = jax.random.split(key, len(prompts)) if key.ndim == 0 else key
        sampling = how.sampling(len(self.rows.columns)).replace(alone=self.rows.tokenizer.size)
        steps = decoding(self.lm, sampling)
        found: dict[int, Int[np.ndarray, "_ K1"]] = {}
        for length, places in by_length(prompts).items():
            codes, own = np.stack([prompts[place] for place in places]), keys[np.asarray(places)]
            made = in_turns(steps, self.lm_params, codes, self.rows.scheme, length + more, self.rows.text, own)
            found |= dict(zip(places, made, strict=True))
        return [found[place] for place in range(len(prompts))]

    def _filled_in(
        self,
        told: Sequence[Int[np.ndarray, "_ K1"]],
        how: TextCodeDecoding,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Int[np.ndarray, "_ K1"]]:
        """Rows without anything that is still to be drawn."""
        return rows_filled_in(self.lm, self.lm_params, told, key, how.sampling(len(self.rows.columns)))

    def _told(self, codes: Ids, frames: int) -> Int[np.ndarray, "S K1"]:
        """A row with these codes and no text, long enough that what is written behind speech is written to the end."""
        layout, size = self.rows.layout, self.rows.tokenizer.size
        late = max(0, -layout.ahead) if isinstance(layout, Beside) else 0
        return told_row(layout, self.rows.scheme, NOBODY, codes, frames + late, size, written=0)

    def _content(self, row: Int[np.ndarray, "S K1"], frames: int) -> Written:
        text, steps = parted(row, self.rows.tokenizer.size)
        return text, self.rows.scheme.restore_row(steps)[:frames]

    def _reply(self, written: Written, known: int, how: TextCodeDecoding) -> Reply:
        text, codes = written
        parts: tuple[Speech | Text, ...] = (Text(self.rows.tokenizer.decode(text.tolist()).strip()),)
        if len(codes) > known:
            said = self.codec.decode(codes)
            said = said if how.with_prompt else said[known * self.codec.config.hop :]
            parts = (*parts, Speech(said, self.rate_hz))
        return Reply((Message("assistant", parts),), {"prompt_frames": known, "codes": codes})
