"""Tasks as tags: what a model is to do with a recording, told in special tokens (Qwen-Audio, arXiv 2311.07919).

    TaskTags(task="keyword", style="emotion_recognition").marks

A row of tags stands in one order: transcription or analysis, the language that is heard, the task, the language that is
written, whether times are written, in which style. What tasks have in common is so said by the same tokens.
"""

import re

from slm_jax.core.config import Config
from slm_jax.core.errors import nearest, require
from slm_jax.core.messages import Text

TRANSCRIPT, ANALYSIS = "startoftranscript", "startofanalysis"
QUESTION, ANSWER = "question", "answer"
TIMES = {True: "timestamps", False: "notimestamps"}
TIME = re.compile(r"[0-9]{1,2}\.[0-9]{2}")
LONGEST_S = 30.0


class TagSet(Config):
    """The tags that a model knows, without their brackets. The defaults are those of Qwen-Audio but times and notes.

    `transcripts`: the tasks that write down what is said; all others are analysis. `others`: what stands in answers.
    """

    languages: tuple[str, ...] = ("unknown", "en", "zh", "de", "es", "ko", "fr", "ja", "it", "zh_tr")
    transcripts: tuple[str, ...] = ("transcribe", "translate")
    analyses: tuple[str, ...] = ("caption", "keyword", QUESTION)
    styles: tuple[str, ...] = (
        *("caption_audiocaps", "caption_clotho", "audioset_ontology", "caption_plain", "itn", "wo_itn"),
        *("named_entity_recognition", "audio_grounding", "emotion_recognition", "music_description", "note_analysis"),
        *("pitch", "velocity", "sonic", "instrument", "speaker_meta", "song_meta", "scene", "event"),
        *("vocal_classification", "speech_understanding", "scenario", "action", "entities", "speech_edit"),
    )
    others: tuple[str, ...] = (
        *("sil", "startofentityvalue", "endofentityvalue", "startofentitytype", "endofentitytype", "startofword"),
        *("endofword", "delim", ANSWER, "choice"),
    )

    @property
    def specials(self) -> tuple[str, ...]:
        """All of them as a tokenizer knows them."""
        starts = (TRANSCRIPT, ANALYSIS, *TIMES.values())
        return tuple(map(mark, (*starts, *self.languages, *self.tasks, *self.styles, *self.others)))

    @property
    def tasks(self) -> tuple[str, ...]:
        """What may stand in the place of the task."""
        return (*self.transcripts, *self.analyses)


QWEN_AUDIO_TAGS = TagSet()


class TaskTags(Config):
    """One task. `heard` and `written`: languages. `times`: are times written? None leaves the tag out.

    `style`: how it is written or what is named, or with `times` the first time, in seconds (`0.00`). A question is
    followed by words and the tag of an answer, and by no more. Raises `UserError` for a tag that is not in `known`.
    """

    task: str
    heard: str = "en"
    written: str | None = "en"
    times: bool | None = False
    style: str | None = None
    known: TagSet = QWEN_AUDIO_TAGS

    def __post_init__(self) -> None:
        _require_known("task", self.task, self.known.tasks)
        _require_known("heard", self.heard, self.known.languages)
        if self.written is not None:
            _require_known("written", self.written, self.known.languages)
        if self.style is not None and not (self.times and _is_time(self.style)):
            _require_known("style", self.style, self.known.styles)
        bare = self.written is None and self.times is None and self.style is None
        require(bare or self.task != QUESTION, "task", self.task, "a question has no tags behind it")

    @property
    def marks(self) -> str:
        """The row of tags; of a question those in front of its words."""
        start = TRANSCRIPT if self.task in self.known.transcripts else ANALYSIS
        times = None if self.times is None else TIMES[self.times]
        found = (start, self.heard, self.task, self.written, times, self.style)
        return "".join(mark(tag) for tag in found if tag is not None)

    @property
    def spelt(self) -> tuple[str, ...]:
        """What is a mark where a part of a message is spelt so (`Template.tags`)."""
        return (self.marks, mark(ANSWER)) if self.task == QUESTION else (self.marks,)

    def parts(self, question: str = "") -> tuple[Text, ...]:
        """What stands behind a clip. Raises `UserError` for a question without words, and for words of another task."""
        good = bool(question) == (self.task == QUESTION)
        require(good, "question", question, f"words go with the task {QUESTION!r}; this one is {self.task!r}")
        return (Text(self.marks), Text(question), Text(mark(ANSWER))) if question else (Text(self.marks),)


def mark(tag: str) -> str:
    """A tag as the special token that it is."""
    return f"<|{tag}|>"


def _is_time(text: str) -> bool:
    return TIME.fullmatch(text) is not None and float(text) <= LONGEST_S


def _require_known(field: str, tag: str, known: tuple[str, ...]) -> None:
    require(tag in known, field, tag, f"must be one of {', '.join(known)}{nearest(tag, known)}")
