"""Whisper with tasks as a system: a clip and what is asked of it in, words out (UniverSLU)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from slm_jax.assemblies.whisper import Whisper, WhisperConfig
from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Message, Text
from slm_jax.data.examples.whisper_targets import clip_and_words
from slm_jax.generation.beam import BeamConfig
from slm_jax.generation.whisper_reader import RATE_HZ, Said, WhisperReader, filled
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.text.task_prompts import TaskPrompts

LENGTH = 32
"""Rows that are scored are padded to multiples of so many ids."""


class TaskDecoding(Config):
    """How answers are found.

    A sequence of n new tokens scores (ln p + n `token_bonus`) / n ** `length_penalty`; a bonus draws a model on that is
    unsure of its end. `max_new`: tokens of an answer at most, which must fit behind every prefix. `rows`: conversations
    that are read together.
    """

    max_new: int = 96
    beams: int = 5
    token_bonus: float = 0.0
    length_penalty: float = 1.0
    rows: int = 8

    def __post_init__(self) -> None:
        for name in ("max_new", "beams", "rows"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")

    @property
    def beam(self) -> BeamConfig:
        """The part that follows several answers."""
        return BeamConfig(beams=self.beams, length_penalty=self.length_penalty, token_bonus=self.token_bonus)


class TaskWhisper(WhisperReader):
    """A tuned Whisper. The words beside the clip are specifiers or an instruction (see `text.task_prompts`).

    Clips longer than a window are refused, never cut. What a conversation gets does not depend on what it is read with.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"speech", "text"})
    writes: ClassVar[frozenset[str]] = frozenset({"text"})
    rate_hz: ClassVar[int] = RATE_HZ

    def __init__(
        self, config: WhisperConfig, params: Any, prompts: TaskPrompts, decoding: TaskDecoding = TaskDecoding()
    ) -> None:
        rows = config.decoder.vocabulary
        require(rows >= prompts.size, "prompts", f"{prompts.size} ids", f"the table of the decoder has {rows} rows")
        super().__init__(config, params, prompts.tokens.end, prompts.never, (prompts.tokens.end,))
        self.prompts, self.decoding = prompts, decoding

    def respond(
        self, conversations: Sequence[Conversation], decoding: TaskDecoding | None, key: jax.Array
    ) -> list[Reply]:
        """An answer to each; nothing is drawn, so that `key` has no effect.

        The trace has the answers found as `n_best`, their `scores`, and the `ids` of the first.
        """
        require_readable(conversations, self.reads)
        how = self.decoding if decoding is None else decoding
        clips, prefixes = self._asked(conversations)
        for prefix in prefixes:
            self.room(prefix, how.max_new)
        found: list[Said] = []
        for start in range(0, len(clips), how.rows):
            some = slice(start, start + how.rows)
            found += self.said(self.heard(clips[some], how.rows), prefixes[some], how.max_new, how.beam)
        return [self._reply(said) for said in found]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every id of each last message, its end included."""
        require_readable(conversations, self.reads)
        for place, one in enumerate(conversations):
            answered = len(one) > 1 and one[-1].role == "assistant" and one[-1].kinds == {"text"}
            require(answered, f"conversation {place}", one[-1].role, "its last message is the assistant's words")
        clips, prefixes = self._asked([one[:-1] for one in conversations])
        answers = [self.prompts.answer(one[-1].text) for one in conversations]
        found: list[np.ndarray] = []
        for start in range(0, len(clips), self.decoding.rows):
            some = slice(start, start + self.decoding.rows)
            found += self._scored(clips[some], prefixes[some], answers[some])
        return found

    def _asked(self, conversations: Sequence[Conversation]) -> tuple[list[np.ndarray], list[list[int]]]:
        """The clip of each at 16 kHz, and what the decoder reads first."""
        clips: list[np.ndarray] = []
        prefixes: list[list[int]] = []
        for place, one in enumerate(conversations):
            try:
                clip, words = clip_and_words(one)
                clips.append(self._fitting(resample(checked(clip.samples, "samples"), clip.rate_hz, RATE_HZ)))
                prefixes.append(self.prompts.prefix(words))
            except UserError as error:
                raise UserError(f"conversation {place}: {error}") from error
        return clips, prefixes

    def _fitting(self, clip: np.ndarray) -> np.ndarray:
        window = self.model.config.encoder.window
        rule = f"at most {window / RATE_HZ:g} s are heard at once; cut it into several clips"
        require(len(clip) <= window, "clip", f"{len(clip) / RATE_HZ:.1f} s", rule)
        return clip

    def _scored(self, clips: list[np.ndarray], prefixes: list[list[int]], answers: list[list[int]]) -> list[np.ndarray]:
        lengths = [len(prefix) + len(answer) for prefix, answer in zip(prefixes, answers, strict=True)]
        room = self.model.config.decoder.max_positions or max(lengths)
        require(max(lengths) <= room, "prefix and answer", max(lengths), f"the decoder has {room} positions")
        length = min(-(-max(lengths) // LENGTH) * LENGTH, room)
        rows = [np.pad([*a, *b], (0, length - len(a) - len(b))) for a, b in zip(prefixes, answers, strict=True)]
        real = np.arange(length) < np.array(lengths)[:, None]
        samples, sample_mask = self.padded(clips, self.decoding.rows)
        ids, mask = (filled(one, len(samples)) for one in (np.stack(rows).astype(np.int32), real))
        log_probs = np.asarray(_log_probs(self.model, self.params, samples, sample_mask, ids, mask))
        ends = zip(prefixes, lengths, strict=True)
        return [log_probs[row, len(prefix) - 1 : end - 1] for row, (prefix, end) in enumerate(ends)]

    def _reply(self, said: Said) -> Reply:
        texts = [self.prompts.decode(ids.tolist()) for ids in said.ids]
        trace = {"ids": said.ids[0], "n_best": texts, "scores": said.scores}
        return Reply((Message("assistant", (Text(texts[0]),)),), trace)


@partial(jax.jit, static_argnums=0)
def _log_probs(
    model: Whisper, params: Any, samples: Array, sample_mask: Array, ids: Array, mask: Array
) -> Float[Array, "B T"]:
    """Of each id but the first, given the speech and those before it."""
    logits = model.apply({"params": params}, samples, ids, sample_mask, mask)[:, :-1]
    targets = jnp.asarray(ids)[:, 1:, None]
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), targets, axis=-1)[..., 0]
