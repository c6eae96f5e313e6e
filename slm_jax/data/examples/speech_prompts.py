"""Conversations with clips as rows of a language model: ids, where speech stands, what is learnt."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from slm_jax.assemblies.prompt_scaled import ASKED_IDS, ASKED_MASK
from slm_jax.assemblies.speech_aware_lm import TEXT, feature_mask_name, features_name
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation, Speech, with_words
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig
from slm_jax.text.marked_tokens import MarkedTokens, encode_together
from slm_jax.text.templates import Piece, Template, clips_of

CLIP_WORDS = "clip_words"
"""Field of an item: what was written down of its clips."""


def counts_name(place: int) -> str:
    """The name in an item of how many frames an encoder made of each clip."""
    return f"counts_{place}" if place else "counts"


class Entries(NamedTuple):
    """What is read, entry by entry `[S]`: ids (0 where speech stands), the clip and its frame that stand there (`TEXT`
    where words do), what is learnt."""

    ids: np.ndarray
    clip: np.ndarray
    frame: np.ndarray
    learnt: np.ndarray

    def where(self, real: np.ndarray) -> "Entries":
        """Some of them `[S]`."""
        return Entries(*(field[real] for field in self))


@dataclasses.dataclass(frozen=True)
class PromptLayout:
    """How conversations become rows.

    `frames_out(samples)`: the vectors that a clip of so many samples becomes. `targets`: "answers" learns the answer
    alone, "all" every word. `window`: samples of the longest clip that can be heard (None: any). `apart`: clips are
    listened to and take no entries.
    """

    tokens: MarkedTokens
    template: Template
    frames_out: Callable[[int], int]
    targets: str = "answers"
    window: int | None = None
    apart: bool = False

    def __post_init__(self) -> None:
        require(self.targets in ("answers", "all"), "targets", self.targets, "must be answers or all")
        ids, end = self.tokens.encode_marked(self.template.end), self.template.end
        require(len(ids) == 1, f"ids of {end!r}", ids, "must be one: is the template of another model than the tokens?")

    def entries(self, conversation: Conversation, answered: bool, lengths: Sequence[int] | None = None) -> Entries:
        """What is read of a conversation, up to the reply or, `answered`, with its last message as the reply.

        Neighbouring pieces become ids together, what is replied apart from what it is given. `lengths`: how much
        encoders read of each clip, such as units; None: its samples. Raises `UserError` for a clip that is longer than
        the window, or so short that no frame comes of it.
        """
        clips = clips_of(conversation)
        read = [len(clip.samples) for clip in clips] if lengths is None else lengths
        found: list[Entries] = []
        pieces = self.template.pieces(conversation, answered)
        for (number, answer, *_), run in groupby(pieces, _run_of):
            if number is None:
                found.append(self._words(list(run), answer))
            else:
                found.append(self._clip(number, clips[number], read[number]))
        return Entries(*(np.concatenate(field) for field in zip(*found, strict=True)))

    def problem(self, length: int) -> str | None:
        """Why a clip of which so much is read (samples, or units) cannot be heard, None where it can."""
        if self.window is not None and length > self.window:
            return "a clip is longer than what is heard at once"
        frames = self.frames_out(length) if length else 0
        return None if frames > 0 else "a clip is so short that no frame comes of it"

    def asked(self, conversation: Conversation) -> np.ndarray:
        """The ids of the last instruction alone, in quotes and without any mark (WavLLM's form)."""
        told = [message.text for message in conversation if message.role == "user"]
        return np.array(self.tokens.encode(f'"{told[-1] if told else ""}"'), np.int32)

    @property
    def end_id(self) -> int:
        """The id that ends a reply."""
        return self.tokens.encode_marked(self.template.end)[0]

    def _words(self, pieces: Sequence[Piece], answer: bool) -> Entries:
        ids = np.array(encode_together(self.tokens, [(piece.text, piece.is_mark) for piece in pieces]), np.int32)
        text = np.full(len(ids), TEXT)
        return Entries(ids, text, text, np.full(len(ids), answer or self.targets == "all"))

    def _clip(self, number: int, clip: Speech, length: int) -> Entries:
        reason = self.problem(length)
        if reason is not None:
            longest = "" if self.window is None else f"; at most {self.window / clip.rate_hz:g} s at once"
            raise UserError(f"clip {number + 1} of {clip.seconds:.3g} s: {reason}{longest}")
        count = 0 if self.apart else self.frames_out(length)
        return Entries(np.zeros(count, np.int32), np.full(count, number), np.arange(count), np.zeros(count, bool))


def _run_of(piece: Piece) -> tuple[int | None, bool, bool, bool]:
    """What neighbouring pieces have in common that become ids together."""
    return piece.clip, piece.answer, piece.reply, piece.heard


@dataclasses.dataclass(frozen=True)
class SpeechPromptExample:
    """An item of a task as arrays of fixed shapes: up to `clips` clips of `clip` samples, rows of `length` entries.

    Nothing is ever cut: what does not fit is refused by name (`problem` asks before). An item may bring what is read
    of its clips, one after the other, with their `counts`: ids `clip_ids` [U] stand where samples would (`dtype` int32,
    and `clip` counts ids), an encoder's `features` [T, E] in a place of their own (`features_1` with `counts_1` of a
    second one); `frames`: how many there are of a clip at most, by encoder. `clip_words`: what was written down of each
    clip. `written`: what is learnt is a row of its own of so many ids, for an encoder-decoder; None: it stands behind
    what it answers. `asked`: the bare instruction is there too, of so many ids at most.
    """

    layout: PromptLayout
    task: SpeechTaskConfig
    rate_hz: int
    clip: int
    length: int
    clips: int = 1
    frames: tuple[int, ...] = ()
    dtype: str = "float32"
    written: int | None = None
    asked: int | None = None

    def __call__(self, item: Item, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`ids`, `speech_at`, `mask`, `target_weight` [S], and of the clips `samples`, `sample_mask` [C, N] or
        `features` [C, T, E], `feature_mask` [C, T] of each encoder. With `written`: `answer_ids`, `target_weight`
        [written]. With `asked`: `asked_ids`, `asked_mask` [asked].

        Raises `UserError` for an item that `problem` names a reason against.
        """
        return self.arrays(item, self._fitting(item, rng))

    def arrays(self, item: Item, said: Conversation) -> dict[str, np.ndarray]:
        """The arrays of an item that is asked so."""
        clips = read_of(item, said)
        heard = self.features(item) if "features" in item else self.padded(clips)
        row = self.row(self.layout.entries(said, True, [len(clip) for clip in clips]))
        weight = row["target_weight"] * np.float32(self.task.counts)
        return {**heard, **row, "target_weight": weight, **self.instruction(said[:-1])}

    def problem(self, item: Item) -> str | None:
        """Why the item cannot be used, None where it can.

        It is asked in one wording. Should another that is drawn later not fit, that one takes its place.
        """
        return self._asked(item, np.random.default_rng(0))[1]

    def _fitting(self, item: Item, rng: np.random.Generator) -> Conversation:
        for draws in (rng, np.random.default_rng(0)):
            said, reason = self._asked(item, draws)
            if said is not None and reason is None:
                return said
        raise UserError(f"item {item.get('id')!r}: {reason}; nothing is cut")

    def _asked(self, item: Item, rng: np.random.Generator) -> tuple[Conversation | None, str | None]:
        """The item in a wording, and why that cannot be used."""
        said = self.task.conversation(item, self.rate_hz, rng)
        if said is None:
            return None, "no answer"
        said = with_words(said, item[CLIP_WORDS]) if CLIP_WORDS in item else said
        return said, self._misfit(said, [len(clip) for clip in read_of(item, said)])

    def _misfit(self, said: Conversation, lengths: Sequence[int]) -> str | None:
        if len(lengths) > self.clips:
            return f"more than {self.clips} clips"
        if any(length > self.clip for length in lengths):
            room = f"{self.clip / self.rate_hz:g} s" if self.dtype == "float32" else f"{self.clip} units"
            return f"a clip is longer than {room}"
        if self.asked is not None and len(self.layout.asked(said[:-1])) > self.asked:
            return f"the instruction is longer than {self.asked} ids"
        reason = next(filter(None, map(self.layout.problem, lengths)), None)
        return self._too_long(self.layout.entries(said, True, lengths)) if reason is None else reason

    def _too_long(self, entries: Entries) -> str | None:
        answer = 0 if self.written is None else int(entries.learnt.sum())
        if len(entries.ids) - answer > self.length:
            return f"the row is longer than {self.length} entries"
        return f"the answer is longer than {self.written} ids" if answer > (self.written or 0) else None

    def instruction(self, conversation: Conversation) -> dict[str, np.ndarray]:
        """What is asked, alone and padded; nothing where that is not read."""
        if self.asked is None:
            return {}
        ids = self.layout.asked(conversation)
        require(len(ids) <= self.asked, "instruction", len(ids), f"there is room for {self.asked} ids; nothing is cut")
        return {ASKED_IDS: np.pad(ids, (0, self.asked - len(ids))), ASKED_MASK: np.arange(self.asked) < len(ids)}

    def row(self, entries: Entries, frames: int | None = None) -> dict[str, np.ndarray]:
        """The entries as arrays of a row; `frames`: vectors of a clip in what they are taken from."""
        answer = {} if self.written is None else self._answer(entries.ids[entries.learnt], self.written)
        entries = entries.where(~entries.learnt) if answer else entries
        count, missing = len(entries.ids), self.length - len(entries.ids)
        rule = f"a row holds {self.length}; nothing is cut"
        require(missing >= 0, "entries", count, rule)
        stride = self.layout.frames_out(self.clip) if frames is None else frames
        at = np.where(entries.clip == TEXT, TEXT, entries.clip * stride + entries.frame)
        return {
            "ids": np.pad(entries.ids, (0, missing)),
            "speech_at": np.pad(at.astype(np.int32), (0, missing), constant_values=TEXT),
            "mask": np.arange(self.length) < count,
            "target_weight": np.pad(entries.learnt.astype(np.float32), (0, missing)),
            **answer,
        }

    def _answer(self, ids: np.ndarray, room: int) -> dict[str, np.ndarray]:
        require(len(ids) <= room, "answer", len(ids), f"there is room for {room} ids; nothing is cut")
        weight = (np.arange(room) < len(ids)).astype(np.float32)
        return {"answer_ids": np.pad(ids, (0, room - len(ids))), "target_weight": weight}

    def samples(self, conversation: Conversation) -> dict[str, np.ndarray]:
        """The clips, padded."""
        return self.padded([clip.samples for clip in clips_of(conversation)])

    def padded(self, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What is read of the clips, samples or ids `[N]` of each, padded."""
        found, real = np.zeros((self.clips, self.clip), self.dtype), np.zeros((self.clips, self.clip), bool)
        for place, clip in enumerate(clips):
            found[place, : len(clip)], real[place, : len(clip)] = clip, True
        return {"samples": found, "sample_mask": real}

    def features(self, item: Item) -> dict[str, np.ndarray]:
        """What encoders made of the clips, padded."""
        made: dict[str, np.ndarray] = {}
        for place, frames in enumerate(self.frames):
            name = features_name(place)
            made[name], made[feature_mask_name(place)] = self._side_by_side(
                item[name], item[counts_name(place)], frames
            )
        return made

    def _side_by_side(self, values: np.ndarray, counts: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames [T, E] of clips one after the other, as [C, T, E] and which of them are real."""
        found = np.zeros((self.clips, frames, values.shape[-1]), np.float32)
        real = np.zeros((self.clips, frames), bool)
        for place, own in enumerate(np.split(values, np.cumsum(counts)[:-1])):
            found[place, : len(own)], real[place, : len(own)] = own, True
        return found, real


def read_of(item: Item, conversation: Conversation) -> list[np.ndarray]:
    """What encoders read of the clips of an item: the ids that it brings, else samples."""
    if "clip_ids" in item:
        return np.split(item["clip_ids"], np.cumsum(item["counts"])[:-1]) if len(item["counts"]) else []
    return [clip.samples for clip in clips_of(conversation)]


def problems(examples: SpeechPromptExample, source: Any) -> tuple[list[int], dict[str, int]]:
    """Places of the items that can be used, and how many cannot, by the reason."""
    kept: list[int] = []
    reasons: dict[str, int] = {}
    for i in range(len(source)):
        reason = examples.problem(source[i])
        if reason is None:
            kept.append(i)
        else:
            reasons[reason] = reasons.get(reason, 0) + 1
    return kept, reasons


def stacked(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Examples as a batch."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
