"""A speech-aware text LM as a system: speech and words in, words out."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM, splice
from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Reply
from slm_jax.core.messages import Conversation, Message, Speech, Text
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, stacked
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.decode import generate
from slm_jax.generation.prompts import round_up, row_keys
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.lora import LoRAModel
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.text.templates import clips_of

ROWS = 8
"""Conversations that are read together, at most."""
LENGTH = 32
"""Rows are padded to multiples of so many entries, so that few programs are compiled."""


class AnswerDecoding(Config):
    """How replies are drawn; 0 for `temperature` takes the likeliest word. `beams` above 1 follow that many replies.

    `lora`: how much LoRA counts, 1 as much as in training (SALMONN lowers it so that the text model's own abilities
    come back).
    """

    max_new: int = 64
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    lora: float = 1.0

    @property
    def sampling(self) -> SamplingConfig:
        """The part that draws."""
        names = ("max_new", "temperature", "top_k", "top_p", "repetition_penalty")
        return SamplingConfig(**{name: getattr(self, name) for name in names})

    @property
    def beam(self) -> BeamConfig:
        """The part that follows several replies."""
        return BeamConfig(beams=self.beams, length_penalty=self.length_penalty)


@dataclasses.dataclass(frozen=True)
class SpeechAwareSystem:
    """A trained model with the layout of its prompts. `variables`: all of them, frozen parts too."""

    model: SpeechAwareLM | LoRAModel
    variables: Any
    layout: PromptLayout
    rate_hz: int = 16_000
    decoding: AnswerDecoding = AnswerDecoding()  # noqa: RUF009  # frozen

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})

    def respond(
        self, conversations: Sequence[Conversation], decoding: AnswerDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """Words after each conversation.

        The trace has `ids` and `log_probs`; with beams `ids`, the texts `n_best` and their `scores`.
        """
        require_readable(conversations, self.reads)
        how = self.decoding if decoding is None else decoding
        found: list[Reply] = []
        keys = row_keys(key, len(conversations)) if conversations else key
        for start in range(0, len(conversations), ROWS):
            rows = slice(start, start + ROWS)
            found += self._replies(conversations[rows], how, keys[rows])
        return found

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every id of each last message, its end included."""
        require_readable(conversations, self.reads)
        found = []
        for start in range(0, len(conversations), ROWS):
            batch = self._batch(conversations[start : start + ROWS], answered=True)
            log_probs = np.asarray(_log_probs(self.model, self.variables, batch))
            counted = batch["target_weight"][:, 1:] > 0
            found += [row[real] for row, real in zip(log_probs, counted, strict=True)]
        return found

    def _replies(self, conversations: Sequence[Conversation], how: AnswerDecoding, keys: jax.Array) -> list[Reply]:
        model = self._weighed(how.lora)
        batch = self._batch(conversations, answered=False)
        x = np.asarray(_vectors(model, self.variables, batch))
        sampling = how.sampling.replace(end=self.layout.end_id)
        if how.beams > 1:
            beams = beam_search(model, self.variables, x, batch["mask"], sampling, how.beam)
            fields = map(np.asarray, (beams.ids, beams.mask, beams.scores))
            return [self._best(*row) for row in zip(*fields, strict=True)]
        made = generate(model, self.variables, x, batch["mask"], keys, sampling)
        return [self._reply(*row) for row in zip(*map(np.asarray, (made.ids, made.mask, made.log_probs)), strict=True)]

    def _weighed(self, lora: float) -> SpeechAwareLM | LoRAModel:
        """The model with LoRA counted so many times as in training."""
        if not isinstance(self.model, LoRAModel) or lora == 1.0:
            return self.model
        trained = dict(self.model.factors or ((config.name, 1.0) for config in self.model.configs))
        return self.model.at(**{name: lora * factor for name, factor in trained.items()})

    def _batch(self, conversations: Sequence[Conversation], answered: bool) -> Batch:
        """Rows of few shapes."""
        said = [self._at_rate(one) for one in conversations]
        entries = [self.layout.entries(one, answered) for one in said]
        clips = [clip for one in said for clip in clips_of(one)]
        example = SpeechPromptExample(
            layout=self.layout,
            task=SpeechTaskConfig(),
            rate_hz=self.rate_hz,
            clip=round_up(max([len(clip.samples) for clip in clips] or [1]), self.rate_hz),
            length=round_up(max(len(one.ids) for one in entries), LENGTH),
            clips=max([len(clips_of(one)) for one in said] or [1]) or 1,
        )
        rows = [{**example.samples(one), **example.row(own)} for one, own in zip(said, entries, strict=True)]
        return stacked(rows)

    def _at_rate(self, conversation: Conversation) -> Conversation:
        def part(part: Speech | Text) -> Speech | Text:
            if isinstance(part, Text):
                return part
            samples = checked(part.samples, "samples")
            return Speech(resample(samples, part.rate_hz, self.rate_hz), self.rate_hz)

        return tuple(Message(message.role, tuple(map(part, message.parts))) for message in conversation)

    def _reply(self, ids: np.ndarray, mask: np.ndarray, log_probs: np.ndarray) -> Reply:
        trace = {"ids": ids[mask], "log_probs": log_probs[mask]}
        return Reply((Message("assistant", (Text(self._text(ids, mask)),)),), trace)

    def _best(self, ids: np.ndarray, mask: np.ndarray, scores: np.ndarray) -> Reply:
        texts = [self._text(*pair) for pair in zip(ids, mask, strict=True) if pair[1].any()]
        trace = {"ids": ids[0][mask[0]], "n_best": texts, "scores": scores[: len(texts)]}
        return Reply((Message("assistant", (Text(texts[0]),)),), trace)

    def _text(self, ids: np.ndarray, mask: np.ndarray) -> str:
        said = ids[mask]
        return self.layout.tokens.decode(said[said != self.layout.end_id].tolist()).strip()


@partial(jax.jit, static_argnums=0)
def _vectors(model: Any, variables: Any, batch: Batch) -> Float[Array, "B S D"]:
    """What the language model reads."""

    def read(model: SpeechAwareLM) -> Float[Array, "B S D"]:
        speech = model.speech(model.heard(batch["samples"], batch["sample_mask"]))
        return splice(model.embed(batch["ids"]), speech.values, batch["speech_at"])

    return model.apply(variables, method=read)


@partial(jax.jit, static_argnums=0)
def _log_probs(model: Any, variables: Any, batch: Batch) -> Float[Array, "B T"]:
    """Of each entry but the first, given those before it."""

    def read(model: SpeechAwareLM) -> Float[Array, "B S V"]:
        args = (batch[name] for name in ("samples", "sample_mask", "ids", "speech_at", "mask"))
        return model(*args)

    logits = model.apply(variables, method=read)[:, :-1]
    targets = jnp.asarray(batch["ids"])[:, 1:, None]
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), targets, axis=-1)[..., 0]
