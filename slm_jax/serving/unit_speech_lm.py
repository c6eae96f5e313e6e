"""A spoken language model over one stream of units: waveforms in, waveforms out (GSLM, TWIST and their kin)."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from slm_jax.assemblies.phonetic_tokenizer import PhoneticTokenizer
from slm_jax.core.errors import require
from slm_jax.decoders.unit_vocoder import UnitVocoder
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.text.vocabulary import Vocabulary
from slm_jax.token_compression.dedup import dedup_row

Units = Int[np.ndarray, "_"]
Samples = Float[np.ndarray, "_"]

RUN_BUCKET, FRAME_BUCKET = 64, 256
"""Sequences are padded to multiples of these numbers of units and frames, so that few shapes compile."""


@dataclasses.dataclass(frozen=True)
class Speech:
    """One utterance as units: `runs` without repetitions and how many frames each lasts."""

    runs: Units
    durations: Units


@dataclasses.dataclass(frozen=True)
class UnitSpeechLM:
    """Tokenizer, language model and vocoder of one run; all work is on lists of utterances of any length."""

    tokenizer: PhoneticTokenizer
    vocabulary: Vocabulary
    lm: Any
    lm_params: Any
    vocoder: UnitVocoder
    vocoder_params: Any
    speakers: tuple[str, ...] = ()

    @property
    def rate_hz(self) -> int:
        """Samples per second of what goes in and out."""
        return self.vocoder.config.rate_hz

    def encode(self, samples: Sequence[Samples]) -> list[Speech]:
        """Units of waveforms at `rate_hz`; raises `UserError` for one that is shorter than a frame."""
        return [Speech(*dedup_row(units)) for units in self.tokenizer.encode_all(samples)]

    def generate(self, prompts: Sequence[Units], key: jax.Array, sampling: SamplingConfig) -> list[Units]:
        """A continuation of each prompt (deduplicated units), without the prompt; specials are never drawn."""
        rows = [self.sequence(prompt)[:-1] for prompt in prompts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, True
        rules = sampling.replace(end=self.vocabulary.eos_id, forbidden=self._never())
        made = generate(self.lm, self.lm_params, ids, mask, key, rules)
        kept = [np.asarray(made.ids[i])[np.asarray(made.mask[i])] for i in range(len(rows))]
        decoded = [self.vocabulary.decode_range("units", row) for row in kept]
        return [np.asarray(units)[inside] for units, inside in decoded]

    def decode(
        self,
        runs: Sequence[Units],
        *,
        durations: Sequence[Units] | None = None,
        f0: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
        speaker: int | Sequence[int] = 0,
    ) -> list[Samples]:
        """Each sequence of units as speech; `speaker`: place in `speakers`, one for all or one for each.

        Durations (frames per unit) and F0 (Hz and voicing per frame) are predicted where they are not given.
        """
        require(all(len(row) for row in runs), "units", "an empty sequence", "there must be something to say")
        units, mask = padded(runs, RUN_BUCKET)
        if durations is None:
            frames = np.asarray(self._durations(self.vocoder_params, units, mask))
        else:
            frames, _ = padded(durations, RUN_BUCKET)
        longest = int((frames * mask).sum(1).max())
        capacity = -(-longest // FRAME_BUCKET) * FRAME_BUCKET
        given = {} if f0 is None else pitch_rows(f0, capacity)
        if self.vocoder.config.speakers:
            given["speaker"] = jnp.broadcast_to(jnp.asarray(speaker, jnp.int32), len(runs))
        wave = self._speak(self.vocoder_params, units, mask, frames, capacity, **given)
        samples, real = np.asarray(wave.samples), np.asarray(wave.mask)
        return [row[: int(kept.sum())] for row, kept in zip(samples, real, strict=True)]

    def log_probs(self, runs: Sequence[Units]) -> list[np.ndarray]:
        """ln p of every unit and of the end, for each sequence."""
        return sequence_log_probs(self.lm, self.lm_params, [self.sequence(row) for row in runs])

    def sequence(self, runs: Units) -> np.ndarray:
        """Ids of the language model: `<s> units </s>`."""
        units = self.vocabulary.encode_range("units", np.asarray(runs))
        return np.concatenate([[self.vocabulary.bos_id], units, [self.vocabulary.eos_id]]).astype(np.int32)

    def _never(self) -> tuple[int, ...]:
        """Ids that no continuation holds: all but the units and the end token."""
        size = self.lm.config.vocabulary
        allowed = self.vocabulary.range_mask("units", "</s>", padded_to=size)
        return tuple(int(i) for i in np.flatnonzero(~allowed))

    @cached_property
    def _durations(self) -> Callable:
        def predict(params: Any, units: jax.Array, mask: jax.Array) -> jax.Array:
            return self.vocoder.apply({"params": params}, units, mask, method=self.vocoder.predicted_frames)

        return jax.jit(predict)

    @cached_property
    def _speak(self) -> Callable:
        @partial(jax.jit, static_argnums=4)
        def speak(params: Any, units: jax.Array, mask: jax.Array, durations: jax.Array, capacity: int, **given: Any):
            vocoder = self.vocoder
            return vocoder.apply(
                {"params": params}, units, mask, capacity, durations=durations, method=vocoder.synthesise, **given
            )

        return speak


def padded(rows: Sequence[np.ndarray], multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of integers as one right-padded array whose length is a multiple of `multiple`, and its mask."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return ids, mask


def pitch_rows(f0: Sequence[tuple[np.ndarray, np.ndarray]], capacity: int) -> dict[str, np.ndarray]:
    """F0 and voicing per frame, padded with unvoiced frames or cut to `capacity`."""
    f0_hz, voiced = np.zeros((len(f0), capacity), np.float32), np.zeros((len(f0), capacity), bool)
    for i, (hz, on) in enumerate(f0):
        count = min(len(hz), capacity)
        f0_hz[i, :count], voiced[i, :count] = hz[:count], on[:count]
    return {"f0_hz": f0_hz, "voiced": voiced}
