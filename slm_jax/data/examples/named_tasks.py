"""The tasks that a transcribed corpus is turned into, by name: transcription, translation, question, instruction."""

from collections.abc import Sequence

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.data.corpora.settings import CorpusConfig, WorldConfig
from slm_jax.data.examples.chosen_tasks import FieldTaskConfig, FirstTaskConfig, OneTaskConfig, ToldTaskConfig
from slm_jax.data.examples.speech_tasks import AskedTaskConfig, ComposedTaskConfig, SpeechTaskConfig
from slm_jax.data.examples.spoken_tasks import SpeakersConfig, SpokenTaskConfig
from slm_jax.data.examples.wordings import wordings

NAMES = ("transcription", "translation", "question", "instruction")
KNOWN = {
    "last_word": "{last_word}",
    "word_count": "{word_count}",
    "language": "{lang}",
    "emotion": "{emotion}",
    "energy": "{energy}",
    "rate": "{speaking_rate}",
}
"""What is asked of a recording -> the field that answers it: what follows from its text, or its corpus knows."""
Kinds = tuple[str, ...] | None


class NamedTaskConfig(Config):
    """A task and what its examples are called: `name` in their ids, `kind` as kind of item."""

    name: str
    kind: str
    task: SpeechTaskConfig

    def __post_init__(self) -> None:
        require(bool(self.name) and "/" not in self.name, "name", self.name, "every task needs one, without a slash")


def named_tasks(
    names: Sequence[str],
    corpus: CorpusConfig,
    translations: Sequence[tuple[str, str]] = (),
    speakers: SpeakersConfig | None = None,
) -> tuple[NamedTaskConfig, ...]:
    """The tasks of these names for a corpus.

    `translations`: (field of an item, language that it is in), such as ("german", "German"): one task each.
    `speakers`: instructions are there a second time, spoken by these. Raises `UserError` for an unknown name.
    """
    found: list[NamedTaskConfig] = []
    for name in names:
        if name not in NAMES:
            raise UserError(f"task is {name!r}: one of {', '.join(NAMES)}{nearest(name, NAMES)}")
        if name == "translation":
            require(bool(translations), "translations", (), "which fields hold them: --translations german=German")
            found += [_translation(field, language) for field, language in translations]
            continue
        task = {"transcription": _transcription, "question": _question, "instruction": _instruction}[name](corpus)
        found.append(NamedTaskConfig(name=name, kind=name, task=task))
        if name == "instruction" and speakers is not None:
            spoken = SpokenTaskConfig(task=task, kinds=task.kinds, speakers=speakers)
            found.append(NamedTaskConfig(name="instruction-spoken", kind=name, task=spoken))
    return tuple(found)


def _transcription(corpus: CorpusConfig) -> SpeechTaskConfig:
    return AskedTaskConfig(asks=wordings("transcription"))


def _translation(field: str, language: str) -> NamedTaskConfig:
    task = AskedTaskConfig(asks=wordings("translation", language=language), answers=(f"{{{field}}}",))
    return NamedTaskConfig(name=f"translation-{field}", kind="translation", task=task)


def _question(corpus: CorpusConfig) -> SpeechTaskConfig:
    """The item's own: a question that is heard, or a manifest's `question` and `answer`; else one that its text, or
    what the corpus knows of it, answers."""
    asked = FieldTaskConfig(asks=("{question}",), answers=("{answer}",))
    known = OneTaskConfig(tasks=tuple(_known(name) for name in KNOWN))
    return FirstTaskConfig(tasks=(ToldTaskConfig(), asked, known), kinds=_kinds(corpus, "question_answer"))


def _instruction(corpus: CorpusConfig) -> SpeechTaskConfig:
    """The item's own: what is written beside its speech, or a manifest's `instruction` and `output`; else two things
    asked at once, of which one is what is said."""
    told = ToldTaskConfig(written=True)
    asked = FieldTaskConfig(asks=("{instruction}",), answers=("{output}",))
    pairs = (("transcription", "{text}"), ("word_count", "{word_count}")), (("last_word", "{last_word}"),)
    composed = tuple(
        ComposedTaskConfig(tasks=(_asked(*first), _asked(*second)))
        for first, second in (pairs[0], (pairs[1][0], pairs[0][0]))
    )
    kinds = _kinds(corpus, "instruction")
    return FirstTaskConfig(tasks=(told, asked, OneTaskConfig(tasks=composed)), kinds=kinds)


def _known(name: str) -> AskedTaskConfig:
    return _asked(name, KNOWN[name])


def _asked(name: str, answer: str) -> AskedTaskConfig:
    return AskedTaskConfig(asks=wordings(name), answers=(answer,))


def _kinds(corpus: CorpusConfig, own: str) -> Kinds:
    """Of the world its sentences, and the kind of item that was made for this; of others all that they give."""
    return ("sentence", own) if isinstance(corpus, WorldConfig) else None
