"""A language model of text and units in one stream: speech and text in, text and speech out, by forms.

A form says how a message is put to the model and what its reply is to look like; the forms of a system are those that
it was trained on (`data.examples.one_stream`). One without a prompt goes on with what stands there.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from slm_jax.audio.files import resample
from slm_jax.core.config import Config
from slm_jax.core.contracts import Reply, Tokenizer
from slm_jax.core.errors import nearest, require
from slm_jax.core.messages import Conversation, Message, Part, Speech, Text
from slm_jax.data.examples.one_stream import SPEECH, Field, OneStream, fields_of, parsed, rendered
from slm_jax.evaluation.scoring import sequence_log_probs
from slm_jax.generation.decode import generate
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.hearing import checked, require_readable
from slm_jax.serving.unit_voice import UnitVoice, padded

PROMPT_BUCKET = 64
TEXT = "text"
Ids = Int[np.ndarray, "_"]


class Form(Config):
    """How the last message of a conversation is put, and what a reply looks like.

    `prompt`: a form whose fields are what the message holds: `speech` or `asked_speech` its clip, `text`, `asked` or
    `written` its words. None: its parts in their order, behind `marks` (of text and of speech) wherever one follows the
    other; then the reply goes on in turns of the same kind and `answer` says by its fields which kinds it may hold,
    `{text}`, `{speech}` or both. Of the fields of a reply, those that begin with `asked` are for the trace.
    """

    name: str
    answer: str
    prompt: str | None = None
    marks: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        fits = (self.prompt is None) == (self.marks is not None)
        require(fits, f"marks of form {self.name!r}", self.marks, "go with a form without a prompt")

    @property
    def reads(self) -> frozenset[str]:
        """Kinds of what is told."""
        return frozenset((SPEECH, TEXT)) if self.prompt is None else kinds_of(self.prompt)

    @property
    def writes(self) -> frozenset[str]:
        """Kinds of what is replied."""
        return kinds_of(self.answer)

    def takes(self, kinds: frozenset[str]) -> bool:
        """Is it for a message of these kinds?"""
        return kinds == self.reads or (self.prompt is None and bool(kinds))


def kinds_of(form: str) -> frozenset[str]:
    """Which of speech and text the fields of a form are."""
    return frozenset(SPEECH if name.endswith(SPEECH) else TEXT for name in fields_of(form))


class OneStreamDecoding(SamplingConfig):
    """How ids are drawn. `form`: the name of one, None: the first that takes what a message holds. `speaker`: a voice
    by name, None for the first."""

    form: str | None = None
    speaker: str | None = None

    @property
    def sampling(self) -> SamplingConfig:
        """How units are drawn."""
        names = [one.name for one in dataclasses.fields(SamplingConfig)]
        return SamplingConfig(**{name: getattr(self, name) for name in names})


class Written(NamedTuple):
    """New ids, the end among them where it came, and ln p of each."""

    ids: Ids
    log_probs: Float[np.ndarray, "_"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneStreamSpeechLM(UnitVoice):
    """Tokenizers of the streams, language model, vocoder, and forms.

    `scored`: how a message of speech alone and one of text alone is put whose likelihood is asked for.
    """

    tokenizers: tuple[Tokenizer, ...]
    stream: OneStream
    lm: Any
    lm_params: Any
    forms: tuple[Form, ...]
    scored: tuple[str, str] = ("{speech}", "{text}")
    decoding: OneStreamDecoding = field(default_factory=OneStreamDecoding)

    reads: ClassVar[frozenset[str]] = frozenset({SPEECH, TEXT})
    writes: ClassVar[frozenset[str]] = frozenset({SPEECH, TEXT})

    def __post_init__(self) -> None:
        names = [one.name for one in self.stream.streams]
        missing = [name for name in self._read_beside if name not in names]
        require(not missing, "streams", names, f"the vocoder reads tokens of {', '.join(missing)} too")

    def respond(
        self,
        conversations: Sequence[Conversation],
        decoding: OneStreamDecoding | None,
        key: Key[Array, ""] | Key[Array, "B"],
    ) -> list[Reply]:
        """Replies to the last message of each conversation; what was said before it is not read.

        A reply has a part for every kind that its form writes, empty where nothing was said; its trace has the `form`,
        the `ids` that were drawn with their `log_probs`, the `units` and the other fields of the form. `key`: one,
        split over the conversations, or one for each. Raises `UserError` for what cannot be heard and where no form
        takes what is said.
        """
        require_readable(conversations, self.reads)
        how = self.decoding if decoding is None else decoding
        voice = self.voice(how.speaker)
        keys = jax.random.split(key, len(conversations)) if key.ndim == 0 else key
        asked = [one[-1] for one in conversations]
        forms = [self.form(message, how.form) for message in asked]
        written: dict[int, Written] = {}
        for form in dict.fromkeys(forms):
            places = [place for place, own in enumerate(forms) if own == form]
            prompts = [self.prompt(asked[place], form) for place in places]
            drawn = self.continuations(prompts, form, how.sampling, keys[np.array(places)])
            written |= dict(zip(places, drawn, strict=True))
        found = [self._fields(written[place], form) for place, form in enumerate(forms)]
        units = [self.stream.units(_joined(fields, SPEECH)) for fields in found]
        sounds = self.spoken([_joined(fields, SPEECH) for fields in found], voice)
        return [
            self._reply(form, written[place], found[place], units[place], sounds[place])
            for place, form in enumerate(forms)
        ]

    def log_prob(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """ln p of every id of the last message of each conversation, which is one clip or one text, and of the end."""
        require_readable(conversations, self.reads)
        rows = []
        for place, one in enumerate(conversations):
            parts = one[-1].parts
            require(len(parts) == 1, f"conversation {place}", len(parts), "one clip or one text is scored")
            form = self.scored[0] if isinstance(parts[0], Speech) else self.scored[1]
            rows.append(self.stream.around(rendered(self.stream.tokens, form, self._told(one[-1])).tolist()))
        return sequence_log_probs(self.lm, self.lm_params, rows)

    def form(self, message: Message, name: str | None) -> Form:
        """The form of that name, or the first that takes a message of such parts."""
        if name is not None:
            names = [one.name for one in self.forms]
            require(name in names, "form", name, f"one of {', '.join(names)}{nearest(name, names)}")
            return self.forms[names.index(name)]
        fitting = [one for one in self.forms if one.takes(message.kinds)]
        require(bool(fitting), "message", sorted(message.kinds), f"no form of {[one.name for one in self.forms]} takes")
        return fitting[0]

    def prompt(self, message: Message, form: Form) -> Ids:
        """The ids that a message is told in."""
        begin, tokens = [self.stream.tokens.special(self.stream.begin)], self.stream.tokens
        if form.prompt is not None:
            return np.array([*begin, *rendered(tokens, form.prompt, self._told(message)).tolist()], np.int32)
        assert form.marks is not None  # a form without a prompt has marks
        found, last = begin, ""
        for part in message.parts:
            kind = SPEECH if isinstance(part, Speech) else TEXT
            found += [tokens.special(form.marks[kind == SPEECH])] if kind != last else []
            found += tokens.encode(part.text) if isinstance(part, Text) else self.heard(part).tolist()
            last = kind
        if last not in form.writes:
            found.append(tokens.special(form.marks[last == TEXT]))
        return np.array(found, np.int32)

    def heard(self, clip: Speech) -> Ids:
        """The ids of a clip; raises `UserError` for one that is shorter than a frame of the tokenizers."""
        samples = resample(checked(clip.samples, "samples"), clip.rate_hz, self.rate_hz)
        columns = []
        for tokenizer in self.tokenizers:
            enough = int(tokenizer.frame_count(len(samples))) > 0
            require(enough, "clip", f"{len(samples)} samples", "shorter than one frame of the tokenizer")
            (made,) = tokenizer.encode_all([samples])
            columns.append(np.asarray(made[tokenizer.spec.columns[0]] if isinstance(made, dict) else made))
        return self.stream.speech(columns)

    def spoken(self, rows: Sequence[Ids], voice: int = 0) -> list[Float[np.ndarray, "_"]]:
        """What is heard of ids of the table: units, with the tokens beside them that the vocoder reads."""
        found = [self.stream.voiced(row) for row in rows]
        tokens = {f"{name}_token": [one[name] for one in found] for name in self._read_beside}
        return self.said([one[self.stream.streams[0].name] for one in found], voice, **tokens)

    @property
    def _read_beside(self) -> tuple[str, ...]:
        """Streams beside the units that the vocoder reads."""
        return tuple(name for name in ("pitch", "style") if getattr(self.vocoder.config, f"{name}_tokens"))

    def continuations(
        self, prompts: Sequence[Ids], form: Form, sampling: SamplingConfig, key: Key[Array, "B"]
    ) -> list[Written]:
        """What the model writes behind each prompt, of the kinds that the form allows."""
        ids, mask = padded(prompts, PROMPT_BUCKET)
        end = self.stream.tokens.special(self.stream.end)
        rules = sampling.replace(end=end, forbidden=(*sampling.forbidden, *self.never(form)))
        made = generate(self.lm, self.lm_params, ids, mask, key, rules)
        drawn, real, scores = np.asarray(made.ids), np.asarray(made.mask), np.asarray(made.log_probs)
        return [Written(row[kept], score[kept]) for row, kept, score in zip(drawn, real, scores, strict=True)]

    def never(self, form: Form) -> tuple[int, ...]:
        """Ids that a reply of this form does not hold: another kind's, and rows of the table that nobody uses."""
        tokens, size = self.stream.tokens, self.lm.config.vocabulary
        legal = tokens.vocabulary.range_mask(TEXT, *tokens.vocabulary.specials, padded_to=size)
        speech = np.pad(tokens.speech, (0, size - len(tokens.speech)))
        if SPEECH in form.writes:
            legal |= speech
        if TEXT not in form.writes:
            legal[:] = speech
        if len(form.writes) < len(self.writes):
            legal[[tokens.special(name) for name in tokens.vocabulary.specials]] = False
            spelt = rendered(tokens, form.answer, dict.fromkeys(fields_of(form.answer), ""))
            legal[[*spelt.tolist(), tokens.special(self.stream.end)]] = True
        return tuple(int(one) for one in np.flatnonzero(~legal))

    def _told(self, message: Message) -> dict[str, Field]:
        """The fields that a message fills."""
        found: dict[str, Field] = {}
        if message.text:
            found |= dict.fromkeys((TEXT, "asked", "written"), message.text)
        if message.speech:
            every = np.concatenate([self.heard(clip) for clip in message.speech])
            found |= dict.fromkeys((SPEECH, f"asked_{SPEECH}"), every)
        return found

    def _fields(self, made: Written, form: Form) -> dict[str, Field]:
        """The fields of a reply."""
        tokens = self.stream.tokens
        if form.prompt is not None:
            return parsed(tokens, form.answer, made.ids)
        heard = tokens.is_speech(made.ids)
        return {TEXT: tokens.decode(made.ids[~heard].tolist()).strip(), SPEECH: made.ids[heard]}

    def _reply(
        self, form: Form, made: Written, fields: dict[str, Field], units: Ids, said: Float[np.ndarray, "_"]
    ) -> Reply:
        words = " ".join(value for name, value in _replied(fields) if isinstance(value, str))
        parts: dict[str, Part] = {TEXT: Text(words), SPEECH: Speech(said, self.rate_hz)}
        kept = tuple(part for kind, part in parts.items() if kind in form.writes)
        trace = {"form": form.name, "ids": made.ids, "log_probs": made.log_probs, "units": units}
        return Reply((Message("assistant", kept),), {**fields, **trace})


def _replied(fields: dict[str, Field]) -> Iterator[tuple[str, Field]]:
    """Fields that are the reply itself."""
    return ((name, value) for name, value in fields.items() if not name.startswith("asked"))


def _joined(fields: dict[str, Field], ending: str) -> Ids:
    rows = [value for name, value in _replied(fields) if name.endswith(ending) and not isinstance(value, str)]
    return np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
