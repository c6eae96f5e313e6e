"""A speech-aware text LM as a system: speech and words in, words out."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from slm_jax.assemblies.prompt_scaled import row_factors
from slm_jax.assemblies.speech_aware_lm import SpeechAwareLM
from slm_jax.assemblies.unit_sequences import UnitSequences
from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, Reply
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Speech, Text, with_words
from slm_jax.core.types import Frames
from slm_jax.data.examples.speech_prompts import PromptLayout, SpeechPromptExample, stacked
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.generation.beam import BeamConfig, beam_search
from slm_jax.generation.decode import generate
from slm_jax.generation.prompts import round_up, row_keys
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.nn.lora import ROW_FACTORS, LoRAModel
from slm_jax.nn.pacing import PaceConfig
from slm_jax.objectives.answers import read_rows
from slm_jax.sequence_models.encoder_decoder import START
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.text.templates import clips_of

ROWS = 8
"""Conversations that are read together, at most."""
LENGTH = 32
"""Rows are padded to multiples of so many entries, so that few programs are compiled."""


class AnswerDecoding(Config):
    """How replies are drawn; 0 for `temperature` takes the likeliest word. `beams` above 1 follow that many replies.

    A reply has `min_new` ids at least and `max_new` at most. `repetition_penalty` is for what the reply itself says.
    `lora`: how much LoRA counts, 1 as much as in training (SALMONN lowers it so that the text model's own abilities
    come back). `pace`: replies are written while the clip is read, by a model whose words listen; None: of whole clips.
    """

    max_new: int = 64
    min_new: int = 0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    lora: float = 1.0
    pace: PaceConfig | None = None

    def __post_init__(self) -> None:
        one = self.pace is None or self.beams == 1
        require(one, "beams", self.beams, "a reply that is written while it is heard is followed alone")

    @property
    def sampling(self) -> SamplingConfig:
        """The part that draws."""
        names = ("max_new", "min_new", "temperature", "top_k", "top_p", "repetition_penalty")
        return SamplingConfig(**{name: getattr(self, name) for name in names})

    @property
    def beam(self) -> BeamConfig:
        """The part that follows several replies."""
        return BeamConfig(beams=self.beams, length_penalty=self.length_penalty)


@dataclasses.dataclass(frozen=True)
class SpeechAwareSystem:
    """A trained model with the layout of its prompts. `variables`: all of them, frozen parts too.

    `units`: what makes units of clips, where the model reads these. `writer`: what writes down clips (`texts(clips)`),
    where the template wants that beside their vectors.
    """

    model: SpeechAwareLM | LoRAModel
    variables: Any
    layout: PromptLayout
    rate_hz: int = 16_000
    decoding: AnswerDecoding = AnswerDecoding()  # noqa: RUF009  # frozen
    units: UnitSequences | None = None
    writer: Any = None

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})

    def respond(
        self, conversations: Sequence[Conversation], decoding: AnswerDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """Words after each conversation.

        The trace has `ids` and `log_probs`, and at a pace `read_s`, the seconds of the clip that were read when each id
        was written; with beams `ids`, the texts `n_best` and their `scores`.
        """
        require_readable(conversations, self.reads)
        how = self.decoding if decoding is None else decoding
        found: list[Reply] = []
        keys = row_keys(key, len(conversations)) if conversations else key
        for start in range(0, len(conversations), ROWS):
            rows = slice(start, start + ROWS)
            found += self._replies(conversations[rows], start, how, keys[rows])
        return found

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every id of each last message, its end included."""
        require_readable(conversations, self.reads)
        found = []
        for start in range(0, len(conversations), ROWS):
            batch = self._batch(conversations[start : start + ROWS], start, answered=True)
            longest = round_up(int((batch["target_weight"] > 0).sum(1).max()), LENGTH)
            rows = _log_probs(self._at(self.decoding), longest, self._counted(batch), batch)
            found += [row[answer] for row, answer in zip(*map(np.asarray, rows), strict=True)]
        return found

    def speech_vectors(self, conversations: Sequence[Conversation]) -> list[int]:
        """How many vectors the language model reads of the clips of each conversation."""
        require_readable(conversations, self.reads)
        found: list[int] = []
        for start in range(0, len(conversations), ROWS):
            rows = conversations[start : start + ROWS]
            batch = self._batch(rows, start, answered=False)
            found += np.asarray(_speech_vectors(self.model, self.variables, batch)).tolist()
        return found

    def _replies(
        self, conversations: Sequence[Conversation], first: int, how: AnswerDecoding, keys: jax.Array
    ) -> list[Reply]:
        model = self._at(how)
        batch = self._batch(conversations, first, answered=False)
        prompts, mask, context = _begun(model, *read_prompts(model, self.variables, batch))
        sampling, variables = how.sampling.replace(end=self.layout.end_id), self._counted(batch)
        if how.beams > 1:
            beams = beam_search(model, variables, prompts, mask, sampling, how.beam, context=context)
            fields = map(np.asarray, (beams.ids, beams.mask, beams.scores))
            return [self._best(*row) for row in zip(*fields, strict=True)]
        made = generate(model, variables, prompts, mask, keys, sampling, context=context)
        rows = zip(*map(np.asarray, (made.ids, made.mask, made.log_probs)), strict=True)
        replies = [self._reply(*row) for row in rows]
        if how.pace is not None:
            for said, reply in zip(conversations, replies, strict=True):
                reply.trace["read_s"] = self._read_s(said, len(reply.trace["ids"]), how.pace)
        return replies

    def _at(self, how: AnswerDecoding) -> SpeechAwareLM | LoRAModel:
        """The model as it is decoded."""
        listens = self.model.config.listener is not None
        require(how.pace is None or listens, "pace", how.pace, "needs words that listen")
        model = self._weighed(how.lora)
        return model.clone(paces=(how.pace,)) if listens else model

    def _weighed(self, lora: float) -> SpeechAwareLM | LoRAModel:
        """The model with LoRA counted so many times as in training."""
        if not isinstance(self.model, LoRAModel) or lora == 1.0:
            return self.model
        trained = dict(self.model.factors or ((config.name, 1.0) for config in self.model.configs))
        return self.model.at(**{name: lora * factor for name, factor in trained.items()})

    def _counted(self, batch: Batch) -> Any:
        """The variables, with how much LoRA counts in each row where that is read off what is asked."""
        if self.model.config.prompt_scale is None:
            return self.variables
        return {**self.variables, ROW_FACTORS: _row_factors(self.model, self.variables, batch)}

    def _batch(self, conversations: Sequence[Conversation], first: int, answered: bool) -> Batch:
        """Rows of few shapes; `first`: number of the first conversation, for people."""
        said = [self._at_rate(one, f"conversation {place}") for place, one in enumerate(conversations, first)]
        said = said if self.layout.template.heard is None else self._written_down(said)
        layout = dataclasses.replace(self.layout, targets="answers")
        clips = [self._heard(one, f"conversation {place}") for place, one in enumerate(said, first)]
        lengths = [[len(clip) for clip in own] for own in clips]
        entries = [layout.entries(one, answered, own) for one, own in zip(said, lengths, strict=True)]
        longest = round_up(max([1, *chain(*lengths)]), self.rate_hz if self.units is None else LENGTH)
        written = max(1, *(int(one.learnt.sum()) for one in entries))
        asked = [one[:-1] if answered else one for one in said]
        scaled = self.model.config.prompt_scale is not None
        instruction = max(len(layout.asked(one)) for one in asked) if scaled else 0
        example = SpeechPromptExample(
            layout=layout,
            task=SpeechTaskConfig(),
            rate_hz=self.rate_hz,
            clip=longest if layout.window is None else min(longest, layout.window),
            length=round_up(max(len(one.ids) for one in entries), LENGTH),
            clips=max(1, *map(len, clips)),
            dtype="float32" if self.units is None else "int32",
            written=round_up(written, LENGTH) if self.model.config.answers_apart else None,
            asked=round_up(instruction, LENGTH) if scaled else None,
        )
        rows = [
            {**example.padded(one), **example.row(own), **example.instruction(words)}
            for one, own, words in zip(clips, entries, asked, strict=True)
        ]
        return stacked(rows)

    def _written_down(self, said: Sequence[Conversation]) -> list[Conversation]:
        """With the words of every clip of which nobody has given them."""
        rule = "the template wants the words of each clip, and there is nothing that writes them down"
        clips = [clip for one in said for clip in clips_of(one)]
        missing = [clip for clip in clips if clip.words is None]
        require(not missing or self.writer is not None, "writer", self.writer, rule)
        words = iter(self.writer.texts([clip.samples for clip in missing]) if missing else ())
        known = [[next(words) if clip.words is None else clip.words for clip in clips_of(one)] for one in said]
        return [with_words(one, own) for one, own in zip(said, known, strict=True)]

    def _heard(self, conversation: Conversation, name: str) -> list[np.ndarray]:
        """What encoders read of the clips: samples, or units."""
        samples = [clip.samples for clip in clips_of(conversation)]
        if self.units is None:
            return samples
        try:
            return self.units.of_clips(samples)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error

    def _at_rate(self, conversation: Conversation, name: str) -> Conversation:
        def part(part: Speech | Text) -> Speech | Text:
            if isinstance(part, Text):
                return part
            samples = checked(part.samples, f"{name}: samples")
            heard = resample(samples, part.rate_hz, self.rate_hz)
            return dataclasses.replace(part, samples=heard, rate_hz=self.rate_hz)

        return tuple(Message(message.role, tuple(map(part, message.parts))) for message in conversation)

    def _reply(self, ids: np.ndarray, mask: np.ndarray, log_probs: np.ndarray) -> Reply:
        trace = {"ids": ids[mask], "log_probs": log_probs[mask]}
        return Reply((Message("assistant", (Text(self._text(ids, mask)),)),), trace)

    def _best(self, ids: np.ndarray, mask: np.ndarray, scores: np.ndarray) -> Reply:
        texts = [self._text(*pair) for pair in zip(ids, mask, strict=True) if pair[1].any()]
        trace = {"ids": ids[0][mask[0]], "n_best": texts, "scores": scores[: len(texts)]}
        return Reply((Message("assistant", (Text(texts[0]),)),), trace)

    def _read_s(self, said: Conversation, ids: int, pace: PaceConfig) -> np.ndarray:
        """Seconds of the clips that are read when each of so many ids is written."""
        heard = sum(clip.seconds for clip in clips_of(said))
        return np.minimum(pace.frames(np.arange(ids)) * self.model.config.vector_samples / self.rate_hz, heard)

    def _text(self, ids: np.ndarray, mask: np.ndarray) -> str:
        said = ids[mask]
        return self.layout.tokens.decode(said[said != self.layout.end_id].tolist()).strip()


@partial(jax.jit, static_argnums=0)
def _speech_vectors(model: Any, variables: Any, batch: Batch) -> Int[Array, "B"]:
    def heard(model: SpeechAwareLM) -> Bool[Array, "_ _"]:
        return model.speech(model.heard(batch["samples"], batch["sample_mask"])).mask

    return model.apply(variables, method=heard).reshape(len(batch["ids"]), -1).sum(-1)


@partial(jax.jit, static_argnums=0)
def _row_factors(model: Any, variables: Any, batch: Batch) -> dict[str, Float[Array, "B D"]]:
    return row_factors(model, variables, batch)


@partial(jax.jit, static_argnums=0)
def read_prompts(model: Any, variables: Any, batch: Batch) -> tuple[Frames, Frames | None]:
    """What the language model reads of a batch of rows, and what a listener listens to beside it.

    Of an encoder-decoder: what its encoder makes of the rows.
    """

    def read(model: SpeechAwareLM) -> tuple[Frames, Frames | None]:
        speech = model.speech(model.heard(batch["samples"], batch["sample_mask"]))
        read = model.vectors(batch["ids"], speech, batch["speech_at"], batch["mask"])
        read = model.listened(read) if model.config.answers_apart else read
        return read, model.memory(speech, len(batch["ids"]))

    return model.apply(variables, method=read)


def _begun(model: Any, read: Frames, memory: Frames | None) -> tuple[Any, Any, Frames | None]:
    """Prompts, their mask, and what is listened to beside them."""
    if not model.config.answers_apart:
        return read.values, read.mask, memory
    prompts = np.full((len(read.mask), 1), START, np.int32)
    return prompts, np.ones(prompts.shape, bool), read


@partial(jax.jit, static_argnums=(0, 1))
def _log_probs(
    model: Any, longest: int, variables: Any, batch: Batch
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """ln p of what is answered, up to `longest` ids of each row: only there are the logits made."""
    features, targets, counted = model.apply(variables, batch, method=read_rows)
    places = jnp.argsort(counted == 0, axis=1, stable=True)[:, :longest]
    targets, counted = (jnp.take_along_axis(x, places, axis=1) for x in (targets, counted))
    features = jnp.take_along_axis(features, places[..., None], axis=1)
    log_probs = jax.nn.log_softmax(model.apply(variables, features, method="head"), axis=-1)
    return jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0], counted > 0
