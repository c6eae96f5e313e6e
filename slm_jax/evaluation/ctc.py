"""What a CTC encoder makes of transcribed utterances: their text read greedily, and when each word is said."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from slm_jax.audio.rates import receptive_field
from slm_jax.core.contracts import Variables
from slm_jax.core.errors import require
from slm_jax.data.corpus import RATE_HZ
from slm_jax.data.examples.transcribed_speech import BLANK, TranscribedSpeechConfig
from slm_jax.encoders.ssl import SSLEncoderConfig
from slm_jax.encoders.ssl_ctc import CTCEncoder
from slm_jax.encoders.whisper import WhisperEncoderConfig
from slm_jax.evaluation.transcription import character_errors
from slm_jax.objectives.ctc import ctc_loss
from slm_jax.token_compression.ctc_alignment import Alignment, forced_alignment
from slm_jax.token_compression.ctc_greedy import Ids, Mask, collapsed
from slm_jax.token_compression.word_times import WordTimes, word_times

Batch = dict[str, np.ndarray]
Items = Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class CTCReader:
    """A trained encoder with its variables, and how items become what it reads, `rows` at a time.

    Items are those of a corpus (`samples` at 16 kHz, `text`) that fit `example`.
    """

    model: CTCEncoder
    variables: Variables
    example: TranscribedSpeechConfig
    rows: int = 16

    def texts(self, items: Items) -> list[str]:
        """What is read of each item, without a language model."""
        return self._read(items)[0]

    def figures(self, items: Items) -> dict[str, float]:
        """`nats_per_character`, and the `character_error_rate` of greedy decoding, spaces counted."""
        read, nats = self._read(items)
        true = [self.example.plain(item["text"]) for item in items]
        rate = character_errors(true, read, language=None).rate
        return {"nats_per_character": nats, "character_error_rate": 0.0 if rate is None else rate}

    def times(self, items: Items) -> list[WordTimes | None]:
        """When each word of the items' texts is said; None where a text does not fit into its frames.

        Raises `UserError` for an encoder whose frames lie elsewhere than those of wav2vec 2.0 and Whisper.
        """
        found: list[WordTimes | None] = []
        first_s, hop_s = frame_places(self.model.config.encoder)
        tokenizer = self.example.tokenizer.make()
        for chosen, batch in self._batches(items):
            spans, score = map(np.asarray, _aligned(self.model, self.variables, batch))
            for item, own, fits in zip(chosen, spans, np.isfinite(score), strict=False):
                text = self.example.plain(item["text"])
                found.append(word_times(text, tokenizer, own, hop_s, first_s) if fits else None)
        return found

    def _read(self, items: Items) -> tuple[list[str], float]:
        """Texts, and nats per character of the true ones."""
        read: list[str] = []
        total = count = 0.0
        for chosen, batch in self._batches(items):
            ids, mask, (nats, labels) = _greedy(self.model, self.variables, batch)
            total, count = total + float(nats), count + float(labels)
            pairs = zip(np.asarray(ids), np.asarray(mask), strict=True)
            read += [self.example.text_of(row[real]) for row, real in pairs][: len(chosen)]
        return read, total / max(count, 1.0)

    def _batches(self, items: Items) -> Iterator[tuple[Items, Batch]]:
        """Items with their batch, whose last rows may be empty."""
        make, none = self.example.make(), np.random.default_rng(0)
        for first in range(0, len(items), self.rows):
            chosen = items[first : first + self.rows]
            made = [make(item, none) for item in chosen]
            made += [{name: np.zeros_like(value) for name, value in made[0].items()}] * (self.rows - len(made))
            yield chosen, {name: np.stack([row[name] for row in made]) for name in made[0]}


def frame_places(encoder: Any) -> tuple[float, float]:
    """Where the stretch begins for which the first frame of an encoder stands, and how long each is, in seconds.

    The middle of Whisper's frame t is at t hops. Raises `UserError` for an encoder of which that is not known.
    """
    if isinstance(encoder, WhisperEncoderConfig):
        return -encoder.hop / 2 / RATE_HZ, encoder.hop / RATE_HZ
    rule = "must be an SSLEncoderConfig or a WhisperEncoderConfig"
    require(isinstance(encoder, SSLEncoderConfig), "encoder", type(encoder).__name__, rule)
    assert isinstance(encoder, SSLEncoderConfig)  # for the type checker
    field, hop = receptive_field(encoder.frame_grid)
    return (field - hop) / 2 / RATE_HZ, hop / RATE_HZ


@partial(jax.jit, static_argnums=0)
def _greedy(
    model: CTCEncoder, variables: Variables, batch: Any
) -> tuple[Ids, Mask, tuple[Float[Array, ""], Float[Array, ""]]]:
    logits, mask = model.apply(variables, batch["samples"], batch["sample_mask"])
    term = ctc_loss(logits, mask, batch["labels"], batch["label_mask"], BLANK).terms["ctc"]
    return *collapsed(logits.argmax(-1), mask, BLANK), (term.total, term.count)


@partial(jax.jit, static_argnums=0)
def _aligned(model: CTCEncoder, variables: Variables, batch: Any) -> Alignment:
    logits, mask = model.apply(variables, batch["samples"], batch["sample_mask"])
    return forced_alignment(jax.nn.log_softmax(logits), mask, batch["labels"], batch["label_mask"], BLANK)
