"""Conversations with clips as rows of a language model: ids, where speech stands, what is learnt."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.assemblies.speech_aware_lm import TEXT
from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Conversation
from slm_jax.data.examples.speech_tasks import Item, SpeechTaskConfig
from slm_jax.text.marked_tokens import MarkedTokens
from slm_jax.text.templates import Template, clips_of


class Entries(NamedTuple):
    """What is read, entry by entry `[S]`: ids (0 where speech stands), the clip and its frame that stand there (`TEXT`
    where words do), what is learnt."""

    ids: np.ndarray
    clip: np.ndarray
    frame: np.ndarray
    learnt: np.ndarray


@dataclasses.dataclass(frozen=True)
class PromptLayout:
    """How conversations become rows.

    `frames_out(samples)`: the vectors that a clip of so many samples becomes. `targets`: "answers" learns the answer
    alone, "all" every word. `window`: samples of the longest clip that can be heard (None: any).
    """

    tokens: MarkedTokens
    template: Template
    frames_out: Callable[[int], int]
    targets: str = "answers"
    window: int | None = None

    def __post_init__(self) -> None:
        require(self.targets in ("answers", "all"), "targets", self.targets, "must be answers or all")

    def entries(self, conversation: Conversation, answered: bool, lengths: Sequence[int] | None = None) -> Entries:
        """Raises `UserError` for a clip that is longer than the window, or so short that no frame comes of it.

        `lengths`: how much of each clip encoders read, such as units; None: its samples.
        """
        clips = clips_of(conversation)
        read = [len(clip.samples) for clip in clips] if lengths is None else lengths
        found: list[tuple[np.ndarray, int, bool]] = []
        for piece in self.template.pieces(conversation, answered):
            if piece.clip is not None:
                count = self._frames_of(piece.clip, read[piece.clip], clips[piece.clip].rate_hz)
                found.append((np.zeros(count, np.int32), piece.clip, False))
            else:
                ids = self.tokens.encode_marked(piece.text) if piece.is_mark else self.tokens.encode(piece.text)
                found.append((np.array(ids, np.int32), TEXT, piece.answer or self.targets == "all"))
        sizes = [len(ids) for ids, _, _ in found]
        frames = [
            np.arange(n) if clip != TEXT else np.full(n, TEXT) for n, (_, clip, _) in zip(sizes, found, strict=True)
        ]
        return Entries(
            np.concatenate([ids for ids, _, _ in found]),
            np.repeat([clip for _, clip, _ in found], sizes),
            np.concatenate(frames),
            np.repeat([learnt for _, _, learnt in found], sizes),
        )

    @property
    def end_id(self) -> int:
        """The id that ends a reply."""
        return self.tokens.encode_marked(self.template.end)[0]

    def _frames_of(self, number: int, samples: int, rate_hz: int) -> int:
        if self.window is not None and samples > self.window:
            raise UserError(
                f"clip {number + 1} is {samples / rate_hz:.1f} s: at most {self.window / rate_hz:g} s are heard at "
                "once; cut it into several clips"
            )
        count = self.frames_out(samples) if samples else 0
        require(count > 0, f"clip {number + 1}", f"{samples} samples", "too short: no frame comes of it")
        return count


@dataclasses.dataclass(frozen=True)
class SpeechPromptExample:
    """An item of a task as arrays of fixed shapes: up to `clips` clips of `clip` samples, rows of `length` entries.

    Nothing is ever cut: what does not fit is refused by name (`problem` asks before). An item may bring what is read
    of its clips, one after the other, with their `counts`: ids `clip_ids` [U] are put where samples stand (`dtype`
    int32, and `clip` counts ids), an encoder's `features` [T, E] in a place of their own; `frames`: how many there are
    of a clip at most.
    """

    layout: PromptLayout
    task: SpeechTaskConfig
    rate_hz: int
    clip: int
    length: int
    clips: int = 1
    frames: int = 0
    dtype: str = "float32"

    def __call__(self, item: Item, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`ids`, `speech_at`, `mask`, `target_weight` [S], and of the clips `samples`, `sample_mask` [C, N] or `features`
        [C, T, E], `feature_mask` [C, T]."""
        said = self.task.conversation(item, self.rate_hz, rng)
        require(said is not None, "item", item.get("id"), "the task has no answer for it")
        assert said is not None  # for the type checker
        clips = read_of(item, said)
        self._require_room(clips)
        heard = self.features(item) if "features" in item else self.padded(clips)
        return {**heard, **self.row(self.layout.entries(said, True, [len(clip) for clip in clips]))}

    def problem(self, item: Item) -> str | None:
        """Why the item cannot be used, None where it can."""
        said = self.task.conversation(item, self.rate_hz, np.random.default_rng(0))
        if said is None:
            return "no answer"
        lengths = [len(clip) for clip in read_of(item, said)]
        if any(length > self.clip for length in lengths):
            return "a clip is too long"
        if len(lengths) > self.clips:
            return "too many clips"
        try:
            return "the row is too long" if len(self.layout.entries(said, True, lengths).ids) > self.length else None
        except UserError as error:
            return str(error)

    def row(self, entries: Entries, frames: int | None = None) -> dict[str, np.ndarray]:
        """The entries as arrays of a row; `frames`: vectors of a clip in what they are taken from."""
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
        }

    def padded(self, clips: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What is read of the clips, samples or ids `[N]` of each."""
        found, real = np.zeros((self.clips, self.clip), self.dtype), np.zeros((self.clips, self.clip), bool)
        for place, clip in enumerate(clips):
            found[place, : len(clip)], real[place, : len(clip)] = clip, True
        return {"samples": found, "sample_mask": real}

    def features(self, item: Item) -> dict[str, np.ndarray]:
        """What an encoder made of the clips, padded."""
        counts, values = item["counts"], item["features"]
        found = np.zeros((self.clips, self.frames, values.shape[-1]), np.float32)
        real = np.zeros((self.clips, self.frames), bool)
        for place, own in enumerate(np.split(values, np.cumsum(counts)[:-1])):
            found[place, : len(own)], real[place, : len(own)] = own, True
        return {"features": found, "feature_mask": real}

    def _require_room(self, clips: Sequence[np.ndarray]) -> None:
        require(len(clips) <= self.clips, "clips", len(clips), f"a row has room for {self.clips}")
        longest = max(map(len, clips), default=0)
        what = "samples" if self.dtype == "float32" else "ids"
        require(longest <= self.clip, "clip", f"{longest} {what}", f"there is room for {self.clip}; nothing is cut")


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
