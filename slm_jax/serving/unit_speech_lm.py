"""A spoken language model over one stream of units: waveforms in, waveforms out (GSLM, TWIST and their kin)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from slm_jax.core.contracts import Reply, Tokenizer
from slm_jax.core.errors import require
from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.hearing import checked, only_clips, require_readable
from slm_jax.serving.unit_voice import Samples, Units, UnitVoice, padded
from slm_jax.text.vocabulary import Vocabulary
from slm_jax.token_compression.dedup import dedup_row


@dataclasses.dataclass(frozen=True)
class SpeechUnits:
    """One utterance as units: `runs` without repetitions and how many frames each lasts."""

    runs: Units
    durations: Units


class Continuation(NamedTuple):
    """New units, and ln p of every token that was drawn, the end among them where it came."""

    units: Units
    log_probs: Float[np.ndarray, "_"]


class UnitDecoding(SamplingConfig):
    """How a unit speech LM goes on, and in which voice.

    `speaker`: the voice's name, where the vocoder knows several; None for the first. `with_prompt`: the reply begins
    with the prompt, said in that voice too, so that it is heard as one.
    """

    speaker: str | None = None
    with_prompt: bool = True

    def drawing(self, sampling: SamplingConfig) -> "UnitDecoding":
        """The same voice, units drawn as `sampling` says."""
        return self.replace(**{one.name: getattr(sampling, one.name) for one in fields(SamplingConfig)})

    def given(self, decoding: SamplingConfig | None) -> "UnitDecoding":
        """What was asked for; where that says nothing of voice and prompt, it is as here."""
        if decoding is None or isinstance(decoding, UnitDecoding):
            return decoding or self
        return self.drawing(decoding)

    @property
    def sampling(self) -> SamplingConfig:
        """How units are drawn."""
        return SamplingConfig(**{one.name: getattr(self, one.name) for one in fields(SamplingConfig)})


class Origin(NamedTuple):
    """The stages of the run that made the parts: judges read their tables."""

    units: str = "units"
    lm: str = "lm"
    vocoder: str = "vocoder"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechLM(UnitVoice):
    """A language model over what a tokenizer hears, and a voice; all work is on lists of utterances of any length.

    `decoding` and `prompt_s` (seconds of speech to go on from): how it is used unless somebody says otherwise.
    """

    tokenizer: Any
    lm: Any
    lm_params: Any
    decoding: UnitDecoding = field(default_factory=UnitDecoding)
    prompt_s: float | int = 3.0
    origin: Origin = field(default_factory=Origin)

    reads: ClassVar[frozenset[str]] = frozenset({"speech"})
    writes: ClassVar[frozenset[str]] = frozenset({"speech"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitSpeechLM(SpeechLM):
    """Tokenizer, language model and vocoder of one run over one stream of units."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary

    def respond(
        self, conversations: Sequence[Conversation], decoding: SamplingConfig | None, key: jax.Array
    ) -> list[Reply]:
        """Goes on with the only clip of each conversation; a conversation that comes several times is heard once.

        A reply is one message of speech; its trace has `prompt_units`, `new_units` and their `log_probs`. `decoding`:
        a `UnitDecoding`, or a `SamplingConfig` that leaves voice and prompt as they are in `self.decoding`. `key`: one,
        split over the conversations, or one for each. Raises `UserError` for what cannot be heard.
        """
        how = self.decoding.given(decoding)
        voice = self.voice(how.speaker)
        heard = self._heard(conversations)
        if not heard:
            return []
        prompts = [one.runs for one in heard]
        made = self.continuations(prompts, key, how.sampling)
        before = prompts if how.with_prompt else [prompt[:0] for prompt in prompts]
        said = self.said([np.concatenate([first, new.units]) for first, new in zip(before, made, strict=True)], voice)
        return [self._reply(*parts) for parts in zip(said, prompts, made, strict=True)]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every unit of each conversation's clip, and of the end."""
        return self.log_probs([one.runs for one in self._heard(conversations)])

    def encode(self, samples: Sequence[np.ndarray]) -> list[SpeechUnits]:
        """Units of waveforms `[N]`, floating point in [-1, 1] at `rate_hz`; raises `UserError` for any other.

        Also for one that is shorter than a frame of the tokenizer.
        """
        clips = [checked(one, f"samples of utterance {place}") for place, one in enumerate(samples)]
        for place, clip in enumerate(clips):
            enough = self.tokenizer.frame_count(len(clip)) > 0
            require(enough, f"utterance {place}", f"{len(clip)} samples", "shorter than one frame of the tokenizer")
        return [SpeechUnits(*dedup_row(units)) for units in self.tokenizer.encode_all(clips)]

    def generate(self, prompts: Sequence[Units], key: jax.Array, sampling: SamplingConfig) -> list[Units]:
        """A continuation of each prompt (deduplicated units), without the prompt; specials are never drawn."""
        return [one.units for one in self.continuations(prompts, key, sampling)]

    def continuations(self, prompts: Sequence[Units], key: jax.Array, sampling: SamplingConfig) -> list[Continuation]:
        """`generate` with the log-probabilities of what was drawn."""
        ids, mask = padded([self.sequence(prompt)[:-1] for prompt in prompts], 1)
        rules = sampling.replace(end=self.vocabulary.eos_id, forbidden=self._never())
        made = generate(self.lm, self.lm_params, ids, mask, key, rules)
        drawn, real, scores = np.asarray(made.ids), np.asarray(made.mask), np.asarray(made.log_probs)
        found = []
        for row, kept, score in zip(drawn, real, scores, strict=True):
            units, inside = self.vocabulary.decode_range("units", row[kept])
            found.append(Continuation(np.asarray(units)[inside], score[kept]))
        return found

    def log_probs(self, runs: Sequence[Units]) -> list[np.ndarray]:
        """ln p of every unit and of the end, for each sequence."""
        return sequence_log_probs(self.lm, self.lm_params, [self.sequence(row) for row in runs])

    def sequence(self, runs: Units) -> np.ndarray:
        """Ids of the language model: `<s> units </s>`."""
        units = self.vocabulary.encode_range("units", np.asarray(runs))
        return np.concatenate([[self.vocabulary.bos_id], units, [self.vocabulary.eos_id]]).astype(np.int32)

    def _heard(self, conversations: Sequence[Conversation]) -> list[SpeechUnits]:
        """Units of the only clip of each conversation."""
        require_readable(conversations, self.reads)
        clips = {
            id(one): clip for one, clip in zip(conversations, only_clips(conversations, self.rate_hz), strict=True)
        }
        units = dict(zip(clips, self.encode(list(clips.values())), strict=True))
        return [units[id(one)] for one in conversations]

    def _reply(self, said: Samples, prompt: Units, made: Continuation) -> Reply:
        trace = {"prompt_units": prompt, "new_units": made.units, "log_probs": made.log_probs}
        return Reply((Message("assistant", (Speech(said, self.rate_hz),)),), trace)

    def _never(self) -> tuple[int, ...]:
        """Ids that no continuation holds: all but the units and the end token."""
        size = self.lm.config.vocabulary
        allowed = self.vocabulary.range_mask("units", "</s>", padded_to=size)
        return tuple(int(i) for i in np.flatnonzero(~allowed))
