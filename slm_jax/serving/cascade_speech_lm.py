"""A spoken language model of several models in a row: waveforms in, waveforms out (AudioLM, Borsos et al. 2022)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ
from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply, Tokenizer
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.evaluation.cascade import written_log_probs
from slm_jax.generation.by_cascade import Mode, Model, Written, write_cascade
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.schemes.cascade import Books, Cascade
from slm_jax.serving.hearing import checked, only_clips, require_readable
from slm_jax.token_compression.dedup import dedup_row


class CascadeDecoding(Config):
    """How a cascade speaks.

    `mode`: "continuation" of a clip; "acoustic": the clip said again by somebody, of which nothing is known but its
    units; "unconditional": from nothing, whatever the clip. `seconds`: of new sound at most, where units do not say how
    much. `temperatures`: one for each model. `with_prompt`: a continuation begins with the clip, as its codes have it.
    """

    mode: Mode = "continuation"
    seconds: float = 5.0
    temperatures: tuple[float, ...] = (0.6, 0.8, 0.6)
    top_k: int | None = None
    top_p: float | None = None
    with_prompt: bool = True

    def __post_init__(self) -> None:
        known = ("continuation", "acoustic", "unconditional")
        require(self.mode in known, "mode", self.mode, f"one of {', '.join(known)}")
        require(self.seconds > 0, "seconds", self.seconds, "must be positive")

    def sampling(self, units: int) -> tuple[SamplingConfig, ...]:
        """How each model draws; `units` at most."""
        common = SamplingConfig(top_k=self.top_k, top_p=self.top_p, max_new=max(1, units), min_new=1)
        return tuple(common.replace(temperature=one) for one in self.temperatures)


class TokenStages(NamedTuple):
    """The stages of the run that made units and codes: judges read their tables."""

    units: str = "units"
    codes: str = "codes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CascadeSpeechLM:
    """Tokenizer of units, codec and the models of one run.

    `decoding` and `prompt_s` (seconds of speech to go on from): how it is used unless somebody says otherwise.
    `scored`: the passes whose tokens `log_prob` gives, one behind the other.
    """

    tokenizer: Tokenizer
    codec: CodecTokenizer
    cascade: Cascade
    models: tuple[Model, ...]
    decoding: CascadeDecoding = field(default_factory=CascadeDecoding)
    prompt_s: float | int = 3.0
    scored: tuple[int, ...] = (0,)
    origin: TokenStages = field(default_factory=TokenStages)

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech"})

    @property
    def rate_hz(self) -> int:
        """The codec's rate."""
        return self.codec.config.rate_hz

    def respond(
        self, conversations: Sequence[Conversation], decoding: CascadeDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """What is said behind, of or without the only clip of each conversation.

        A reply is one message of speech; its trace has `prompt_frames` (of codes, 0 where none were known), `units`
        without repetitions and `codes` `[T, K]`. `key`: one, split over the conversations, or one for each. Raises
        `UserError` for what cannot be heard, and for a clip without a whole unit.
        """
        how = self.decoding if decoding is None else decoding
        given = [self._given(books, how.mode) for books in self._heard(conversations)]
        if not given:
            return []
        new = max(1, round(how.seconds * self.cascade.acoustic.frames_per_second))
        known = [_frames(self.cascade, books) for books in given]
        frames = None if how.mode == "acoustic" else [count + new for count in known]
        configs = how.sampling(new // self.cascade.frames_per_unit)
        made = write_cascade(self.cascade, self.models, given, key, configs, mode=how.mode, frames=frames)
        return [self._reply(one, count, how) for one, count in zip(made, known, strict=True)]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[Float[np.ndarray, "_"]]:
        """ln p of what the passes that are `scored` write of each conversation's clip, ends among them."""
        clips = [self.deduplicated(books) for books in self._heard(conversations)]
        of_passes = [self._log_probs(number, clips) for number in self.scored]
        return [np.concatenate(scores) for scores in zip(*of_passes, strict=True)]

    def encode(self, samples: Sequence[np.ndarray]) -> list[Written]:
        """Units and codes, both frame by frame and of one length in time, of waveforms `[N]` at `rate_hz`."""
        found = []
        for place, one in enumerate(samples):
            clip = checked(one, f"samples of utterance {place}")
            (units,) = self.tokenizer.encode_all([resample(clip, self.rate_hz, RATE_HZ)])
            ids = self.codec.encode(clip)
            frames = self.cascade.common_frames(len(units), len(ids))
            require(frames > 0, f"utterance {place}", f"{len(clip)} samples", "shorter than one unit")
            codes = dict(zip(self.cascade.sizes_of_codes, ids[:frames].T, strict=True))
            found.append({self.cascade.units: units[: frames // self.cascade.frames_per_unit], **codes})
        return found

    def detailed(
        self, samples: Sequence[np.ndarray], decoding: CascadeDecoding | None = None, key: Key[Array, ""] | None = None
    ) -> list[Reply]:
        """Waveforms `[N]` said again with the codes of the last pass written anew, given all others."""
        how, known = self.decoding if decoding is None else decoding, self.cascade.passes[-1].reads
        given = [{name: books[name] for name in (self.cascade.units, *known)} for books in self.encode(samples)]
        key = jax.random.key(0) if key is None else key
        made = write_cascade(self.cascade, self.models, given, key, how.sampling(1), mode="acoustic")
        return [self._reply(one, 0, how) for one in made]

    def deduplicated(self, books: Books) -> Written:
        """The same, its units without repetitions: what the passes read and write."""
        units = dedup_row(np.asarray(books[self.cascade.units]))[0].astype(np.int32)
        return {**books, self.cascade.units: units}

    def _heard(self, conversations: Sequence[Conversation]) -> list[Written]:
        require_readable(conversations, self.reads)
        return self.encode(only_clips(conversations, self.rate_hz))

    def _given(self, books: Written, mode: Mode) -> Written:
        """What of a clip the mode is told."""
        if mode == "unconditional":
            return {}
        return books if mode == "continuation" else {self.cascade.units: books[self.cascade.units]}

    def _log_probs(self, number: int, clips: Sequence[Books]) -> list[Float[np.ndarray, "_"]]:
        """ln p of what one pass writes of each clip, chunk after chunk."""
        parts = [self.cascade.chunks(number, books) for books in clips]
        model, params = self.models[number]
        scores = iter(written_log_probs(self.cascade, number, model, params, [part for some in parts for part in some]))
        return [np.concatenate([next(scores) for _ in some]) for some in parts]

    def _reply(self, made: Written, known: int, how: CascadeDecoding) -> Reply:
        codes = np.stack([made[name] for name in self.cascade.sizes_of_codes], axis=1)
        said = self.codec.decode(codes)
        if not how.with_prompt:
            said = said[known * self.codec.config.hop :]
        trace = {"prompt_frames": known, "units": made[self.cascade.units], "codes": codes}
        return Reply((Message("assistant", (Speech(said, self.rate_hz),)),), trace)


def _frames(cascade: Cascade, books: Books) -> int:
    """Frames of codes that are known of a clip."""
    return max((len(books[name]) for name in cascade.sizes_of_codes if name in books), default=0)
