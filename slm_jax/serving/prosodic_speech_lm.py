"""A spoken language model over units with durations and pitch: waveforms in, waveforms out (pGSLM)."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from slm_jax.assemblies.prosodic_tokenizer import ProsodicTokenizer, Voice
from slm_jax.core.contracts import Reply
from slm_jax.core.messages import Conversation, Message, Speech
from slm_jax.core.types import EMPTY
from slm_jax.data.examples.run_rows import RunRowsConfig
from slm_jax.evaluation.codes import code_log_probs
from slm_jax.generation.decode import generate
from slm_jax.generation.rules import Rules
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.hearing import checked, only_clips, require_readable
from slm_jax.serving.unit_speech_lm import SpeechLM
from slm_jax.serving.unit_voice import Samples

Entries = Int[np.ndarray, "_ K"]
DURATION, LOG_F0 = 1, 2
"""Places of the streams beside the units."""
BUCKET = 64
"""Prompts and scored rows are padded to multiples of so many runs, so that few shapes compile."""


class Utterance(NamedTuple):
    """Ids of all streams of the runs of one utterance, frames of each, the voice by which its pitch was normalised."""

    entries: Entries
    durations: Int[np.ndarray, "N"]
    voice: Voice

    @property
    def runs(self) -> Int[np.ndarray, "N"]:
        """Units without repetitions."""
        return self.entries[:, 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProsodicSpeechLM(SpeechLM):
    """Tokenizer, language model and vocoder of one run over units, durations and pitch.

    `rows`: how runs become steps of the language model. A reply is spoken in the pitch of its prompt, with durations
    and F0 that the language model drew; where F0 is a real number, the vocoder says what is voiced.
    """

    tokenizer: ProsodicTokenizer
    rows: RunRowsConfig

    def respond(
        self, conversations: Sequence[Conversation], decoding: SamplingConfig | None, key: jax.Array
    ) -> list[Reply]:
        """Goes on with the only clip of each conversation.

        A reply is one message of speech; its trace has `prompt` and `new`: what `described` gives of the runs. Raises
        `UserError` for what cannot be heard.
        """
        how = self.decoding.given(decoding)
        speaker, heard = self.voice(how.speaker), self._heard(conversations)
        if not heard:
            return []
        made = self.continuations([one.entries for one in heard], key, how.sampling)
        before = [one.entries if how.with_prompt else one.entries[:0] for one in heard]
        whole = [np.concatenate(parts) for parts in zip(before, made, strict=True)]
        said = self.speak(whole, [one.voice for one in heard], speaker)
        return [self._reply(*parts) for parts in zip(said, heard, made, strict=True)]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[Float[np.ndarray, "_ K"]]:
        """ln p of every entry of each conversation's clip and of the end; 0 where an entry is empty."""
        return self.log_probs([one.entries for one in self._heard(conversations)])

    def log_probs(self, utterances: Sequence[Entries]) -> list[Float[np.ndarray, "_ K"]]:
        """The same of runs."""
        steps = [self.rows.sequence(one) for one in utterances]
        longest = -(-max(map(len, steps), default=1) // BUCKET) * BUCKET
        return code_log_probs(self.lm, self.lm_params, steps, longest)

    def encode(self, samples: Sequence[np.ndarray], speaker: str | None = None) -> list[Utterance]:
        """Runs of waveforms `[N]` at `rate_hz` that `speaker` said (None: whoever is heard, by what is heard)."""
        clips = [checked(one, f"samples of utterance {place}") for place, one in enumerate(samples)]
        heard = self.tokenizer.encode_voices(clips, speaker)
        return [Utterance(self.rows.entries(columns), columns["durations"], voice) for columns, voice in heard]

    def continuations(self, prompts: Sequence[Entries], key: jax.Array, sampling: SamplingConfig) -> list[Entries]:
        """New runs behind each prompt, without it."""
        opened = [self.rows.opening(prompt) for prompt in prompts]
        length = -(-max(len(steps) for steps, _ in opened) // BUCKET) * BUCKET
        ids = np.full((len(prompts), length, len(self.rows.columns)), EMPTY, np.int32)
        mask = np.zeros(ids.shape[:2], bool)
        for row, (steps, _) in enumerate(opened):
            ids[row, : len(steps)], mask[row, : len(steps)] = steps, True
        forced = np.stack([following for _, following in opened])
        made = generate(self.lm, self.lm_params, ids, mask, key, sampling, forced=forced, rules=self._rules())
        drawn, real = np.asarray(made.ids), np.asarray(made.mask)
        return [self.rows.continued(row[kept]) for row, kept in zip(drawn, real, strict=True)]

    def speak(self, utterances: Sequence[Entries], voices: Sequence[Voice], speaker: int = 0) -> list[Samples]:
        """Each of these runs in the pitch of its voice; silence of no length where there is nothing to say."""
        full = [(one, voice) for one, voice in zip(utterances, voices, strict=True) if len(one)]
        if not full:
            return [np.zeros(0, np.float32) for _ in utterances]
        units, durations = [one[:, 0] for one, _ in full], [self.frames(one) for one, _ in full]
        tracks = [self._track(one, voice) for one, voice in full]
        said = iter(self.decode(units, durations=durations, f0=tracks, speaker=speaker))
        return [next(said) if len(one) else np.zeros(0, np.float32) for one in utterances]

    def frames(self, entries: Entries) -> Int[np.ndarray, "N"]:
        """How many frames each run lasts, at least one."""
        grid = self.lm.config.grid(DURATION)
        found = entries[:, DURATION] if grid is None else grid.values(entries[:, DURATION])
        return np.maximum(np.rint(found), 1).astype(np.int32)

    def log_f0(self, entries: Entries) -> Float[np.ndarray, "N"]:
        """ln F0 of each run over the mean of its voice; NaN where a run is unvoiced, as far as the stream says that."""
        grid, ids = self.lm.config.grid(LOG_F0), entries[:, LOG_F0]
        if grid is not None:
            return grid.values(ids)
        return np.where(ids == 0, np.nan, self.tokenizer.log_f0_of(ids))

    def described(self, entries: Entries) -> dict[str, np.ndarray]:
        """Units, frames and ln F0 (over the voice's mean) of runs, by name."""
        return {"units": entries[:, 0], "frames": self.frames(entries), "log_f0": self.log_f0(entries)}

    def _heard(self, conversations: Sequence[Conversation]) -> list[Utterance]:
        require_readable(conversations, self.reads)
        return self.encode(only_clips(conversations, self.rate_hz))

    def _track(self, entries: Entries, voice: Voice) -> tuple[np.ndarray, np.ndarray]:
        """F0 (Hz) and voicing of every frame."""
        frames = self.frames(entries)
        log_f0 = np.repeat(self.log_f0(entries), frames)
        factor = voice.std if self.tokenizer.config.scaled else 1.0
        voiced = ~np.isnan(log_f0)
        if self.lm.config.grid(LOG_F0) is not None:
            voiced = self._voiced(np.repeat(entries[:, 0], frames))
        f0_hz = np.exp(np.where(voiced, log_f0, 0.0) * factor + voice.mean)
        return np.where(voiced, f0_hz, 0.0).astype(np.float32), voiced

    def _voiced(self, units: Int[np.ndarray, "T"]) -> np.ndarray:
        """Which frames the vocoder takes for voiced."""
        padded = np.pad(units, (0, -len(units) % BUCKET))[None]
        real = np.arange(padded.shape[1])[None] < len(units)
        speaker = np.zeros(1, np.int32) if self.vocoder.config.speakers else None
        return np.asarray(self._told(self.vocoder_params, padded, real, speaker)[1])[0, : len(units)]

    @cached_property
    def _told(self) -> Callable:
        def predict(params: Any, units: jax.Array, mask: jax.Array, speaker: jax.Array | None) -> tuple:
            return self.vocoder.apply({"params": params}, units, mask, speaker, method=self.vocoder.predicted_f0)

        return jax.jit(predict)

    def _rules(self) -> Rules:
        """What may be drawn: units and the end, durations above 0, classes of pitch and no special ids."""
        sizes = self.lm.config.streams
        legal = np.zeros((len(sizes), max(sizes)), bool)
        legal[0, [*range(self.rows.units), self.rows.end]] = True
        for stream, book in enumerate(self.tokenizer.spec.codebooks[1:], start=1):
            legal[stream, : book.size or sizes[stream]] = True
        legal[DURATION, 0] = False
        return Rules(legal[None], np.array([self.rows.end], np.int32))

    def _reply(self, said: Samples, heard: Utterance, new: Entries) -> Reply:
        trace = {"prompt": self.described(heard.entries), "new": self.described(new)}
        return Reply((Message("assistant", (Speech(said, self.rate_hz),)),), trace)
