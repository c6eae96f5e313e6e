"""Text and units in one stream of ids: documents, of which every kind is a form with fields, or words in turns.

    Document(answer="[Speech]{speech}")                                                   # speech alone
    Document(prompt="[Speech]{speech}[Text]", answer="{text}")                            # written down
    Document(prompt="{asked_speech}", answer="{asked} [ta] {answered} [ua] {answered_speech}")
    WordTurns(layout=WordSpans(), marks=("[Text]", "[Speech]"))                           # interleaved

Whatever stands outside of braces is marks and words of the form, in which special tokens count; fields are an item's
text and speech. The same forms make the prompts of a system and read its replies (`rendered`, `parsed`).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from string import Formatter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.messages import Text
from slm_jax.data.examples.speech_tasks import SpeechTaskConfig
from slm_jax.data.examples.spoken_item import SpokenItem, Utterance, spoken_item
from slm_jax.layouts.by_time import Timed, carried_on, entries_by_time
from slm_jax.layouts.interleaved import Interleaved, WordSpans
from slm_jax.layouts.one_row import marked_row
from slm_jax.layouts.said import Said, said_of
from slm_jax.text.joint_tokens import JointTokens
from slm_jax.text.marked_tokens import encode_together

Item = dict[str, Any]
Ids = Int[np.ndarray, "_"]
Field = str | Ids
SPEECH = "speech"
FIELDS = ("text", "speech", "asked", "asked_speech", "answered", "answered_speech", "written")
"""What a form may hold: all that is said; the question and the answer of an item; what is written beside the question.

Those that end with `speech` are heard."""


class Row(NamedTuple):
    """Ids of a document and how much each counts as a target."""

    ids: Int[np.ndarray, "S"]
    weight: Float[np.ndarray, "S"]


@dataclasses.dataclass(frozen=True)
class OneStream:
    """The id space, and which columns of an item hold which range of it.

    `streams`: of each range of speech, in the order of the vocabulary: its name, its column, its rate (ids per second)
    and whether repetitions are left out. Where several begin at one time, later ones come first (SpiRit-LM: style,
    pitch, units). `begin` and `end`: the specials around a document.
    """

    tokens: JointTokens
    streams: tuple["StreamOf", ...]
    begin: str = "<s>"
    end: str = "</s>"

    def item(self, item: Item) -> SpokenItem:
        """What is said in an item, utterance by utterance."""
        return spoken_item(item, tuple((one.column, one.rate) for one in self.streams))

    def entries(self, columns: Sequence[Int[np.ndarray, "_"]]) -> tuple[Ids, Float[np.ndarray, "N"]]:
        """All streams of an utterance as ids of the table, sorted by time, and the times (seconds)."""
        pairs = list(zip(self.streams, columns, strict=True))[::-1]
        found = entries_by_time([Timed(ids, one.rate, one.once) for one, ids in pairs])
        ids = np.zeros(len(found.ids), np.int64)
        for place, (one, _) in enumerate(pairs):
            own = found.which == place
            ids[own] = self.tokens.vocabulary.encode_range(one.name, found.ids[own])
        return ids.astype(np.int32), found.times

    def speech(self, columns: Sequence[Int[np.ndarray, "_"]]) -> Ids:
        """The ids of an utterance that is heard."""
        return self.entries(columns)[0]

    def units(self, ids: Ids) -> Ids:
        """The ids of the first stream among these, from 0: what a voice says."""
        found, inside = self.tokens.vocabulary.decode_range(self.streams[0].name, np.asarray(ids))
        return np.asarray(found)[np.asarray(inside)].astype(np.int32)

    def voiced(self, ids: Ids) -> dict[str, Ids]:
        """By name: the ids of the first stream among these, and for each of them that of every other stream that holds
        there, all from 0; 0 throughout for a stream that says nothing."""
        which, own = np.full(len(ids), -1), np.zeros(len(ids), int)
        for place, one in enumerate(self.streams):
            found, inside = self.tokens.vocabulary.decode_range(one.name, np.asarray(ids))
            which[inside], own[inside] = place, np.asarray(found)[inside]
        table = carried_on(which[which >= 0], own[which >= 0], len(self.streams), lead=0)
        return {one.name: np.maximum(table[:, k], 0).astype(np.int32) for k, one in enumerate(self.streams)}

    def around(self, ids: Sequence[int]) -> Ids:
        """A whole document: between its begin and its end."""
        return np.array([self.tokens.special(self.begin), *ids, self.tokens.special(self.end)], np.int32)


class StreamOf(NamedTuple):
    """A range of the vocabulary and where its ids come from (see `OneStream`)."""

    name: str
    column: str
    rate: float
    once: bool = True


class DocumentConfig(Config):
    """What all kinds of document have.

    `kinds`: of the items that it reads; None: those that the corpus gives unasked. `whole`: a document that is longer
    than a row is left out; otherwise a window of it is read, at random.
    """

    kinds: tuple[str, ...] | None = None
    whole: bool = False

    def row(self, item: Item, stream: OneStream, rng: np.random.Generator) -> Row | None:
        """The whole document between its begin and its end; None of an item that lacks what it needs."""
        raise TypeError(f"{type(self).__name__} makes no documents")


class Document(DocumentConfig):
    """A form with fields (`FIELDS`).

    `prompt`: what is told, one of several wordings, of which each entry counts `prompt_weight` in the loss, where every
    one of `answer` counts 1; without a prompt all is answer. `task` says what is `written` beside a question, such as
    notes: the words of the last message of the user.
    """

    answer: str
    prompt: tuple[str, ...] = ()
    prompt_weight: float = 0.0
    task: SpeechTaskConfig | None = None

    def __post_init__(self) -> None:
        require(self.prompt_weight >= 0, "prompt_weight", self.prompt_weight, "0 or more")
        for form in (self.answer, *self.prompt):
            unknown = sorted(set(fields_of(form)) - set(FIELDS))
            require(not unknown, f"fields of {form!r}", unknown, f"some of {', '.join(FIELDS)}")

    def row(self, item: Item, stream: OneStream, rng: np.random.Generator) -> Row | None:
        prompt = self.prompt[int(rng.integers(len(self.prompt)))] if self.prompt else ""
        fields = self.fields(item, stream)
        if any(name not in fields for form in (prompt, self.answer) for name in fields_of(form)):
            return None
        told, said = (rendered(stream.tokens, form, fields) for form in (prompt, self.answer))
        ids = stream.around([*told.tolist(), *said.tolist()])
        weight = np.ones(len(ids), np.float32)
        weight[1 : 1 + len(told)] = self.prompt_weight
        return Row(ids, weight)

    def fields(self, item: Item, stream: OneStream) -> dict[str, Field]:
        """What the item has of the fields."""
        said = stream.item(item)
        found: dict[str, Field] = {}
        for name, one in (("", said.whole), ("asked", said.asked), ("answered", said.answered)):
            if one is not None:
                found |= _fields(name, one, stream)
        if self.task is not None:
            found |= written_beside(self.task, item)
        return found


class WordTurns(DocumentConfig):
    """Words of a transcribed recording, some written and some heard, in turns; `marks` open what is written and heard.

    `layout` says where turns change (SpiRit-LM: `WordSpans`). A turn that is heard begins with the first entry at or
    after the beginning of its first word. `before`: what stands before every word that is written; nothing where a
    tokenizer puts a space there itself, as LLaMA's does.
    """

    layout: Interleaved = WordSpans()
    marks: tuple[str, str] = ("[Text]", "[Speech]")
    before: str = " "

    def row(self, item: Item, stream: OneStream, rng: np.random.Generator) -> Row | None:
        one = stream.item(item).whole
        if one is None or not len(one.words) or any(column is None for column in one.columns):
            return None
        ids, times = stream.entries(one.columns)  # type: ignore[arg-type]
        slots = self.layout.slots(words_at(one, times, stream.tokens, self.before), len(ids), rng)
        row = stream.around(marked_row(slots, ids, stream.tokens.vocabulary, self.marks).tolist())
        return Row(row, np.ones(len(row), np.float32))


@dataclasses.dataclass(frozen=True)
class DocumentExample:
    """How the items that fit become examples of up to `longest` ids: `ids` `[S]` int32, `target_weight` `[S]` float."""

    document: DocumentConfig
    stream: OneStream
    longest: int

    def __post_init__(self) -> None:
        require(self.longest >= 2, "longest", self.longest, "at least 2: an id and its target")

    def fits(self, item: Item) -> bool:
        """Can the item be used? What is drawn does not decide."""
        row = self.document.row(item, self.stream, np.random.default_rng(0))
        return row is not None and len(row.ids) > 2 and (not self.document.whole or len(row.ids) <= self.longest)

    def __call__(self, item: Item, rng: np.random.Generator) -> dict[str, np.ndarray]:
        row = self.document.row(item, self.stream, rng)
        assert row is not None  # items that have no document were left out
        start = int(rng.integers(max(0, len(row.ids) - self.longest) + 1))
        end = start + self.longest
        return {"ids": row.ids[start:end], "target_weight": row.weight[start:end]}


def _fields(name: str, one: Utterance, stream: OneStream) -> dict[str, Field]:
    found: dict[str, Field] = {} if one.text is None else {name or "text": one.text}
    if all(column is not None for column in one.columns):
        found[f"{name}_{SPEECH}".lstrip("_")] = stream.speech(one.columns)  # type: ignore[arg-type]
    return found


def written_beside(task: SpeechTaskConfig, item: Item) -> dict[str, Field]:
    """The words of the last message of the user in the conversation of a task."""
    said = task.conversation(item, 1, np.random.default_rng(0))
    if said is None:
        return {}
    return {"written": " ".join(part.text for part in said[-2].parts if isinstance(part, Text))}


def words_at(one: Utterance, times: Float[np.ndarray, "N"], tokens: JointTokens, before: str) -> Said:
    """The words of an utterance, each behind `before`, with the entries that are heard in them."""
    ids = [np.asarray(tokens.encode(before + word), np.int32) for word in one.words]
    first = np.searchsorted(times, one.start_s)
    last = np.maximum(np.searchsorted(times, one.end_s), first)
    return said_of(ids, np.stack([first, last], axis=1))


def fields_of(form: str) -> list[str]:
    """Names of the fields of a form."""
    return [name for _, name, _, _ in Formatter().parse(form) if name is not None]


def rendered(tokens: JointTokens, form: str, fields: Mapping[str, Field]) -> Ids:
    """The ids of a form: what stands outside of braces is marked text, a field is words as they are or ids of speech.

    Words and what stands about them become ids together, up to the next stretch of speech (`encode_together`). Raises
    `UserError` for a field that is missing.
    """
    found, texts = list[int](), list[tuple[str, bool]]()
    for literal, name, _, _ in Formatter().parse(form):
        texts += [(literal, True)] if literal else []
        if name is None:
            continue
        require(name in fields, f"field of {form!r}", name, f"there are {', '.join(fields) or 'none'}")
        value = fields[name]
        if isinstance(value, str):
            texts += [(value, False)] if value else []
        else:
            found, texts = [*found, *encode_together(tokens, texts), *value.tolist()], []
    return np.asarray([*found, *encode_together(tokens, texts)], np.int32)


OPEN, CLOSE = "\ue000", "\ue001"
"""Around the number of a stretch of speech while a reply is taken apart: characters that no script uses."""


def parsed(tokens: JointTokens, form: str, ids: Ids) -> dict[str, Field]:
    """The fields of a reply that was to have this form, as far as it has it; those that it does not reach are absent.

    A field of text takes all the rest where what should follow it never comes.
    """
    text, clips = _spelt(tokens, form, np.asarray(ids))
    found = re.fullmatch(_pattern(form), text, re.DOTALL)
    given = {} if found is None else {name: value for name, value in found.groupdict().items() if value is not None}
    return {
        name: clips[int(value)] if name.endswith(SPEECH) else _CLIP.sub(" ", value).strip()
        for name, value in given.items()
    }


_CLIP = re.compile(f"{OPEN}(\\d+){CLOSE}")


def _pattern(form: str) -> str:
    """What a reply of this form looks like, each part optional together with all that follows it."""
    pieces = list(Formatter().parse(form))
    pattern = ""
    for place, (literal, name, _, _) in reversed(list(enumerate(pieces))):
        is_last = place == len(pieces) - 1
        opens = re.sub(r"(\\\s)+", r"\\s*", re.escape(literal))
        if name is None:
            inner = ".*" if is_last else ""
        elif name.endswith(SPEECH):
            inner = f"(?:{OPEN}(?P<{name}>\\d+){CLOSE})?"
            pattern = f"(?:{pattern}|.*)"  # what follows may be cut short, or something else
        else:
            inner = f"(?P<{name}>.*?)"
        pattern = f"(?:{opens}{inner}{pattern})?"
    return pattern


def _spelt(tokens: JointTokens, form: str, ids: Ids) -> tuple[str, list[Ids]]:
    """Ids as text, marks of the form spelt out, each stretch of speech as its number; and the stretches."""
    names = {tokens.vocabulary.special(name): name * (name in form) for name in tokens.vocabulary.specials}
    heard, marks = tokens.is_speech(ids), np.isin(ids, list(names))
    kind = heard * 2 + marks
    cuts = [0, *(np.flatnonzero(kind[1:] != kind[:-1]) + 1).tolist(), len(ids)] if len(ids) else []
    text, clips = "", list[Ids]()
    for first, last in pairwise(cuts):
        own = ids[first:last]
        if heard[first]:
            text, clips = f"{text}{OPEN}{len(clips)}{CLOSE}", [*clips, own]
        else:
            text += "".join(names[int(one)] for one in own) if marks[first] else tokens.decode(own.tolist())
    return text, clips
