"""Whisper writes down what is said: whole recordings in windows, in the language spoken or in English."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from slm_jax.assemblies.whisper import Whisper, WhisperConfig
from slm_jax.audio.windows import quiet_windows
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.generation.beam import BeamConfig
from slm_jax.generation.whisper_reader import RATE_HZ, WhisperReader
from slm_jax.text.whisper_tokens import TASKS, WhisperTokens

SILENCE_S = 1.0
"""Behind a clip that a trimming encoder hears: without an end Whisper says the same again until it has no room."""


class Transcription(Config):
    """How words are found.

    `language` None: the likeliest of the first window. `task`: "transcribe", or "translate" to English. `max_new`:
    tokens of a window at most (None: as many as the decoder has room for). `rows`: windows that are read together.
    """

    language: str | None = None
    task: str = "transcribe"
    max_new: int | None = None
    rows: int = 8
    beam: BeamConfig = BeamConfig(beams=1)

    def __post_init__(self) -> None:
        require(self.task in TASKS, "task", self.task, f"must be one of {', '.join(TASKS)}")
        require(self.max_new is None or self.max_new >= 1, "max_new", self.max_new, "must be at least 1")
        require(self.rows >= 1, "rows", self.rows, "must be at least 1")


class Transcript(NamedTuple):
    """What was said: the words, their language, seconds heard; `windows`: (start, end) in seconds and words of each."""

    text: str
    language: str
    seconds: float
    windows: tuple[tuple[float, float, str], ...]


class WhisperWriter(WhisperReader):
    """A Whisper model with its tokens.

    Recordings longer than a window are cut where it is quiet and written down window by window. What a row gets does
    not depend on what it is read with.
    """

    def __init__(
        self, config: WhisperConfig, params: Any, tokens: WhisperTokens, decoding: Transcription = Transcription()
    ) -> None:
        rows, told = config.decoder.vocabulary, tokens.tokenizer.size
        require(rows >= told, "tokenizer", f"{told} tokens", f"the table of the decoder has {rows} rows")
        super().__init__(config, params, tokens.end, tokens.never, tokens.not_first, SILENCE_S)
        self.tokens, self.decoding = tokens, decoding

    def transcribe(
        self, clips: Sequence[Float[np.ndarray, "_"]], decoding: Transcription | None = None
    ) -> list[Transcript]:
        """Clips `[N]` at 16 kHz written down.

        Clips are neither empty nor hold NaN. Raises `UserError` for a language, task or `max_new` that the model has
        not.
        """
        how = self.decoding if decoding is None else decoding
        room = self._room(how)
        cuts = [quiet_windows(clip, self.model.config.encoder.window, RATE_HZ) for clip in clips]
        windows = [(place, clip[a:b]) for place, clip in enumerate(clips) for a, b in cuts[place]]
        languages = {} if how.language is None else dict.fromkeys(range(len(clips)), how.language)
        words: list[str] = []
        for start in range(0, len(windows), how.rows):
            places, some = zip(*windows[start : start + how.rows], strict=True)
            context = self.heard(some, how.rows)
            if not languages.keys() >= set(places):
                for place, language in zip(places, self._languages(context), strict=False):
                    languages.setdefault(place, language)
            words += self._words(context, [languages[place] for place in places], how, room)
        said = iter(words)
        return [
            _transcript(clip, cut, [next(said) for _ in cut], languages[place])
            for place, (clip, cut) in enumerate(zip(clips, cuts, strict=True))
        ]

    def texts(self, clips: Sequence[Float[np.ndarray, "_"]]) -> list[str]:
        """What is said in each clip."""
        return [one.text for one in self.transcribe(clips)]

    def _room(self, how: Transcription) -> int:
        """Tokens that may follow a prefix."""
        prefix = self.tokens.prefix(how.language or self.tokens.any_language, how.task)
        return self.room(prefix, how.max_new)

    def _words(self, context: Frames, languages: list[str], how: Transcription, room: int) -> list[str]:
        """What is said in the first rows of `context`, one for each of the languages."""
        prefixes = [self.tokens.prefix(language, how.task) for language in languages]
        return [self.tokens.decode(said.ids[0].tolist()) for said in self.said(context, prefixes, room, how.beam)]

    def _languages(self, context: Frames) -> list[str]:
        """Which language the decoder takes each row for."""
        if not self.tokens.languages:
            return [self.tokens.any_language] * len(context.mask)
        known = np.array(sorted(self.tokens.languages.values()))
        logits = np.asarray(_first_logits(self.model, self.params, context, self.tokens.start))
        return [self.tokens.language_of(int(number)) for number in known[logits[:, known].argmax(-1)]]


@partial(jax.jit, static_argnums=(0, 3))
def _first_logits(model: Whisper, params: Any, context: Frames, start: int) -> Float[Array, "B V"]:
    """Of what follows the first token."""
    ids: Int[Array, "B 1"] = jnp.full((len(context.mask), 1), start, jnp.int32)

    def read(model: Whisper) -> Float[Array, "B V"]:
        return model.decoder(ids, context=context)[:, 0]

    return model.apply({"params": params}, method=read)


def _transcript(clip: np.ndarray, cuts: list[tuple[int, int]], words: list[str], language: str) -> Transcript:
    windows = tuple((a / RATE_HZ, b / RATE_HZ, said) for (a, b), said in zip(cuts, words, strict=True))
    return Transcript(" ".join(filter(None, words)), language, len(clip) / RATE_HZ, windows)
