"""Whisper as a system: speech in, its words out, in the language spoken or in English."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.whisper import Whisper, WhisperConfig
from slm_jax.audio.windows import quiet_windows
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.core.types import Frames
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.rules import Rules, rules_of
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.interop.parts import load_source
from slm_jax.serving.hearing import checked, only_clips, require_readable
from slm_jax.text.whisper_tokens import WhisperTokens

ROWS = 8
"""Windows that are read together, at most."""
RATE_HZ = 16_000


class Transcription(Config):
    """How words are found. `language` None: the likeliest of the first window; `task`: transcribe, or translate to
    English. `max_new`: tokens of a window at most (None: as many as the decoder has room for).
    """

    language: str | None = None
    task: str = "transcribe"
    max_new: int | None = None
    beam: BeamConfig = BeamConfig(beams=1)


class Transcript(NamedTuple):
    """What was said: the words, their language, seconds heard; `windows`: (start, end) in seconds and words of each."""

    text: str
    language: str
    seconds: float
    windows: tuple[tuple[float, float, str], ...]


class Transcriber:
    """A Whisper model with its tokens.

    Recordings longer than a window are cut where it is quiet and written down window by window. What a row gets does
    not depend on what it is read with.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})
    rate_hz: ClassVar[int] = RATE_HZ

    def __init__(
        self, config: WhisperConfig, params: Any, tokens: WhisperTokens, decoding: Transcription = Transcription()
    ) -> None:
        rows, told = config.decoder.vocabulary, tokens.tokenizer.size
        require(rows >= told, "tokenizer", f"{told} tokens", f"the table of the decoder has {rows} rows")
        self.model, self.params, self.tokens, self.decoding = config.make(), params, tokens, decoding

    def respond(
        self, conversations: Sequence[Conversation], decoding: Transcription | None, key: jax.Array
    ) -> list[Reply]:
        """The words of the one clip of each conversation; nothing is drawn, so that `key` has no effect."""
        require_readable(conversations, self.reads)
        found = self.transcribe(only_clips(conversations, RATE_HZ), decoding)
        return [Reply((Message("assistant", (Text(one.text),)),), {"language": one.language}) for one in found]

    def transcribe(
        self, clips: Sequence[Float[np.ndarray, "N"]], decoding: Transcription | None = None
    ) -> list[Transcript]:
        """Clips `[N]` at 16 kHz written down; raises `UserError` for an empty one and for NaN."""
        how = self.decoding if decoding is None else decoding
        clips = [checked(clip, f"clip {place}") for place, clip in enumerate(clips)]
        cuts = [quiet_windows(clip, self.model.config.encoder.window, RATE_HZ) for clip in clips]
        pieces = [(clip[a:b], place) for place, clip in enumerate(clips) for a, b in cuts[place]]
        languages = self._languages([clip[: cut[0][1]] for clip, cut in zip(clips, cuts, strict=True)], how)
        words: list[str] = []
        for start in range(0, len(pieces), ROWS):
            some = pieces[start : start + ROWS]
            words += self._words([clip for clip, _ in some], [languages[place] for _, place in some], how)
        said = iter(words)
        return [
            _transcript(clip, cut, [next(said) for _ in cut], language)
            for clip, cut, language in zip(clips, cuts, languages, strict=True)
        ]

    def _words(self, clips: list[np.ndarray], languages: list[str], how: Transcription) -> list[str]:
        """Of clips that fit in a window."""
        prefixes = np.array([self.tokens.prefix(language, how.task) for language in languages], np.int32)
        config, context = self.model.config.decoder, self._heard(clips)
        prefixes = _filled(prefixes, len(context.mask))
        room = (config.max_positions or 0) - prefixes.shape[1]
        require(how.max_new is None or how.max_new <= room, "max_new", how.max_new, f"the decoder has room for {room}")
        made = beam_search(
            self.model.config.decoder.make(),
            self.params["decoder"],
            prefixes,
            np.ones(prefixes.shape, bool),
            SamplingConfig(max_new=how.max_new or room, temperature=0.0),
            how.beam,
            rules=self._rules(prefixes.shape[1]),
            context=context,
        )
        best = zip(np.asarray(made.ids[:, 0]), np.asarray(made.mask[:, 0]), clips, strict=False)
        return [self.tokens.decode(ids[real].tolist()) for ids, real, _ in best]

    def _languages(self, clips: list[np.ndarray], how: Transcription) -> list[str]:
        """The language of each clip: the one that is asked for, or what the decoder takes it for."""
        if how.language is not None or not self.tokens.languages:
            return [how.language or "en"] * len(clips)
        known = np.array(sorted(self.tokens.languages.values()))
        found: list[str] = []
        for start in range(0, len(clips), ROWS):
            some = clips[start : start + ROWS]
            logits = _first_logits(self.model, self.params, self._heard(some), self.tokens.start)
            likeliest = known[np.asarray(logits)[: len(some), known].argmax(-1)]
            found += [self.tokens.language_of(int(number)) for number in likeliest]
        return found

    def _heard(self, clips: list[np.ndarray]) -> Frames:
        """What the encoder makes of up to `ROWS` clips; few numbers of rows, so that few programs are compiled."""
        longest = max(map(len, clips)) if self.model.config.encoder.trim else self.model.config.encoder.window
        length = min(-(-longest // RATE_HZ) * RATE_HZ, self.model.config.encoder.window)
        rows = np.stack([np.pad(clip, (0, length - len(clip))) for clip in clips])
        mask = np.arange(length) < np.array([len(clip) for clip in clips])[:, None]
        count = 1 << (len(clips) - 1).bit_length()
        return _encoded(self.model, self.params, _filled(rows, count), _filled(mask, count))

    def _rules(self, prefix: int) -> Rules:
        """What may be said: after a prefix of so many ids, `not_first` is kept back for one step."""
        vocabulary = self.model.config.decoder.vocabulary
        always = rules_of(SamplingConfig(end=self.tokens.end, forbidden=self.tokens.never), (vocabulary,))
        legal = np.ones((1, 1, vocabulary), bool) if always.legal is None else np.asarray(always.legal)
        first = legal.copy()
        first[..., list(self.tokens.not_first)] = False
        return Rules(np.concatenate([legal] * prefix + [first, legal]), always.ends)


def load_transcriber(source: str | Path, decoding: Transcription = Transcription()) -> Transcriber:
    """A Whisper model from a hub folder, one of ours, or `hub:NAME`; raises `UserError` for another kind of model."""
    config, params, folder = load_source(str(source), "model")
    if not isinstance(config, WhisperConfig):
        raise UserError(f"model is {str(source)!r}: it holds a {type(config).__name__}, and a Whisper model is needed")
    return Transcriber(config, params, WhisperTokens(folder), decoding)


@partial(jax.jit, static_argnums=0)
def _encoded(model: Whisper, params: Any, samples: Float[Array, "B N"], mask: Bool[Array, "B N"]) -> Frames:
    return model.apply({"params": params}, samples, mask, method="encode")


@partial(jax.jit, static_argnums=(0, 3))
def _first_logits(model: Whisper, params: Any, context: Frames, start: int) -> Float[Array, "B V"]:
    """Of what follows the first token."""
    ids: Int[Array, "B 1"] = jnp.full((len(context.mask), 1), start, jnp.int32)

    def read(model: Whisper) -> Float[Array, "B V"]:
        return model.decoder(ids, context=context)[:, 0]

    return model.apply({"params": params}, method=read)


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and the last one again until there are `count`."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def _transcript(clip: np.ndarray, cuts: list[tuple[int, int]], words: list[str], language: str) -> Transcript:
    windows = tuple((a / RATE_HZ, b / RATE_HZ, said) for (a, b), said in zip(cuts, words, strict=True))
    return Transcript(" ".join(filter(None, words)), language, len(clip) / RATE_HZ, windows)
