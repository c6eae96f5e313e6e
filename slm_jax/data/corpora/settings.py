"""Which corpus: one config per kind, and `parse_corpus` for the short form that the command line takes."""

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar

from slm_jax.core.config import Config
from slm_jax.core.errors import UserError, nearest, require

RATE_HZ = 16_000
"""The rate at which a corpus is stored unless its `rate_hz` says otherwise."""
SPLIT_BY = ("id", "speaker", "text")
STYLES = ("rate", "energy", "register")
"""What of a voice's manner the world can draw per turn."""
STYLE_FIELDS = ("speaking_rate", "energy", "register")
"""The fields of an item that hold what was drawn, in the order of `STYLES`."""
HOURS = ("hours", "question_hours", "dialogue_hours", "instruction_hours")
"""Of what the world can make how much."""


class CorpusConfig(Config):
    """What all corpora share.

    `rate_hz` (samples per second) and `channels` (1, or one per speaker) are those in which items are stored.
    A split is a function of what `split_by` names: the item's "id", its "speaker" (nobody is heard in two splits) or
    its "text" (nothing is said in two). `dev_share` and `test_share` are the shares that go to those splits.
    `processes`: workers that make or read the items, 0 for one per core; the result does not depend on it, so it is
    left out of `identity`.
    """

    # Fields that came after corpora had been prepared: at their default they are left out of `identity`.
    LATER: ClassVar[tuple[str, ...]] = ("rate_hz", "channels", "split_by")

    dev_share: float = 0.05
    test_share: float = 0.1
    processes: int = 0
    rate_hz: int = RATE_HZ
    channels: int = 1
    split_by: str = "id"

    def __post_init__(self) -> None:
        require(4_000 <= self.rate_hz <= 192_000, "rate_hz", self.rate_hz, "samples per second, 4,000 to 192,000")
        require(1 <= self.channels <= 16, "channels", self.channels, "between 1 and 16")
        require(self.split_by in SPLIT_BY, "split_by", self.split_by, f"must be one of {', '.join(SPLIT_BY)}")
        for name in ("dev_share", "test_share"):
            require(0.0 <= getattr(self, name) < 1.0, name, getattr(self, name), "a share lies in [0, 1)")
        total = self.dev_share + self.test_share
        require(total < 1.0, "dev_share + test_share", total, "something must be left for training")
        require(self.processes >= 0, "processes", self.processes, "0 for one per core, or a positive number")

    def identity(self) -> dict[str, Any]:
        """The settings that determine the content, as JSON."""
        defaults = {field.name for field in dataclasses.fields(self) if getattr(self, field.name) == field.default}
        left_out = {"processes", *defaults.intersection(self.LATER)}
        return {name: value for name, value in self.to_json().items() if name not in left_out}

    def default_kinds(self) -> tuple[str, ...] | None:
        """The kinds of records that `open_corpus` gives unless asked otherwise; None for all."""
        return None

    def check(self) -> None:
        """Raise `UserError` when what the corpus is made of is not there.

        Not done on construction: a saved config must load on a machine that has only the prepared corpus.
        """


class WorldConfig(CorpusConfig):
    """The synthetic world: any amount of clean speech whose text, phonemes, times and pitch are known.

    `hours` of single sentences, `question_hours` of question-answer pairs, `dialogue_hours` of two-speaker
    dialogues, `instruction_hours` of an utterance with a written question about it and the written answer. `seed`
    draws the facts, the sentences and the speakers. Speakers are made from one voice by pitch, formant and tempo
    changes; speaker 0 is the unchanged voice. `slowest` and `fastest` bound the speaking rate that is drawn per record.

    `channels` 2 gives each side of a dialogue, and of a question and its answer, a channel; whatever has one side is
    on channel 0. Between turns lies a silence of `shortest_pause_s` to `longest_pause_s`, or, for `overlap_share` of
    the turns of a dialogue, the next one begins up to `longest_overlap_s` before the present one ends. In
    `backchannel_share` of the turns that are long enough the listener says a word or two. `styles`: which of `rate`,
    `energy` and `register` (of the pitch) are drawn anew for every turn and noted; a drawn rate takes the place of
    `slowest` and `fastest`. `split_by` "speaker" deals out the speakers: with as few as three each split has one, but
    only a split with two of them has dialogues.
    """

    LATER: ClassVar[tuple[str, ...]] = (
        *CorpusConfig.LATER, "instruction_hours", "shortest_pause_s", "longest_pause_s", "overlap_share",
        "longest_overlap_s", "backchannel_share", "styles",
    )  # fmt: skip

    hours: float = 0.8
    question_hours: float = 0.0
    dialogue_hours: float = 0.0
    seed: int = 0
    speakers: int = 1
    slowest: float = 0.9
    fastest: float = 1.15
    instruction_hours: float = 0.0
    shortest_pause_s: float = 0.25
    longest_pause_s: float = 0.25
    overlap_share: float = 0.0
    longest_overlap_s: float = 0.6
    backchannel_share: float = 0.0
    styles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        hours = {name: getattr(self, name) for name in HOURS}
        for name, value in hours.items():
            require(math.isfinite(value) and value >= 0, name, value, "a number of hours, 0 or more")
        require(sum(hours.values()) > 0, "hours", self.hours, "nothing to make")
        require(1 <= self.speakers <= 1000, "speakers", self.speakers, "between 1 and 1000")
        require(self.dialogue_hours == 0 or self.speakers >= 2, "speakers", self.speakers, "a dialogue takes two")
        held_out = self.dialogue_hours > 0 and self.split_by == "speaker"
        require(not held_out or self.speakers >= 4, "speakers", self.speakers, "dialogues split by speaker take four")
        require(0.7 <= self.slowest <= self.fastest <= 1.4, "slowest", self.slowest, "0.7 <= slowest <= fastest <= 1.4")
        require(self.seed >= 0, "seed", self.seed, "a non-negative number")
        require(self.channels <= 2, "channels", self.channels, "1, or 2: one for each side of a dialogue")
        self._check_manner()

    def _check_manner(self) -> None:
        shortest, longest = self.shortest_pause_s, self.longest_pause_s
        rule = "0 <= shortest_pause_s <= longest_pause_s <= 10"
        require(0.0 <= shortest <= longest <= 10.0, "shortest_pause_s", shortest, rule)
        for name in ("overlap_share", "backchannel_share"):
            require(0.0 <= getattr(self, name) <= 1.0, name, getattr(self, name), "a share lies in [0, 1]")
        require(0.1 <= self.longest_overlap_s <= 5.0, "longest_overlap_s", self.longest_overlap_s, "0.1 to 5 s")
        known = len(set(self.styles)) == len(self.styles) and set(self.styles) <= set(STYLES)
        require(known, "styles", self.styles, f"some of {', '.join(STYLES)}, each once")

    def default_kinds(self) -> tuple[str, ...] | None:
        return ("sentence",) if self.hours else None


class RecordingsConfig(CorpusConfig):
    """What corpora of recorded speech share.

    Items shorter than `min_s` or longer than `max_s` (seconds) are rejected. With `require_text` an item without
    text is rejected, else it is kept with an empty text and a warning is counted.
    """

    min_s: float = 0.1
    max_s: float = 60.0
    require_text: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.min_s < self.max_s, "min_s", self.min_s, f"0 <= min_s < max_s ({self.max_s})")


class ManifestConfig(RecordingsConfig):
    """JSON lines in NeMo's style: `audio_filepath` (absolute or relative to the manifest), `duration`, `text`.

    Optional keys: `id`, `offset`, `speaker`, `lang`, `split`, `messages` (turns, as `core.messages.Turn` writes them);
    all others are kept as JSON under `extra`. `conversations` instead of `audio_filepath`: NeMo's list of texts and
    clips, which are laid end to end (`data.corpora.conversations`).
    """

    path: str

    def check(self) -> None:
        require(Path(self.path).is_file(), "manifest", self.path, "no such file" + _near_path(self.path))


class FolderConfig(RecordingsConfig):
    """A folder, read recursively: audio files with the text in a file of the same name that ends in `.txt`."""

    path: str

    def check(self) -> None:
        require(Path(self.path).is_dir(), "folder", self.path, "no such folder" + _near_path(self.path))


class TFDSConfig(RecordingsConfig):
    """A speech set of TensorFlow Datasets: `name` as `tfds.builder` takes it, or the folder of a prepared set.

    `audio_key`, `text_key`, `speaker_key`: the features to read, empty to look for the usual names. `source_rate_hz`:
    the rate of the set's audio, 0 to take the one that the set declares. `tfds_dir`: where prepared sets lie, empty for
    the default of TFDS.
    """

    name: str
    tfds_dir: str = ""
    audio_key: str = ""
    text_key: str = ""
    speaker_key: str = ""
    source_rate_hz: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.name), "tfds", self.name, "the name of a TFDS set is missing")

    def identity(self) -> dict[str, Any]:
        # `source_rate_hz` was called `rate_hz` when it was the only rate
        found = super().identity()
        stored = {"stored_hz": found.pop("rate_hz")} if "rate_hz" in found else {}
        return {**found, "rate_hz": found.pop("source_rate_hz"), **stored}


class TaskCorpusConfig(CorpusConfig):
    """What `prepare --tasks`, or `speak`, has made: a folder of shards whose items end with an answer.

    Its splits and rate were settled when it was made; the shares of this config play no part.
    """

    path: str

    def check(self) -> None:
        require(Path(self.path).is_dir(), "tasks", self.path, "no such folder" + _near_path(self.path))


class NamedCorpusConfig(Config):
    """A corpus among several, with the name by which a mixture calls it."""

    name: str
    corpus: CorpusConfig

    def __post_init__(self) -> None:
        plain = bool(self.name) and "/" not in self.name
        require(plain, "name", self.name, "every corpus of several needs one, without a slash")


class SeveralCorporaConfig(CorpusConfig):
    """Several corpora as one, laid end to end in this order.

    How often a stage draws from each is for its mixture to say (`data.mixture`), so that other weights need no other
    preparation. Splits are those of each corpus: `dev_share` and `test_share` of this config play no part. All corpora
    have one rate and one number of channels, which are then those of the whole.
    """

    corpora: tuple[NamedCorpusConfig, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [part.name for part in self.corpora]
        require(bool(names) and len(set(names)) == len(names), "corpora", names, "at least one, all names different")
        for name, default in (("rate_hz", RATE_HZ), ("channels", 1)):
            found = {part.name: getattr(part.corpus, name) for part in self.corpora}
            agreed = next(iter(found.values()))
            require(set(found.values()) == {agreed}, f"{name} of the corpora", found, "all must have the same")
            require(getattr(self, name) in (default, agreed), name, getattr(self, name), f"its corpora have {agreed}")
            object.__setattr__(self, name, agreed)

    def identity(self) -> dict[str, Any]:
        kind = self.to_json()["type"]
        return {"type": kind, "corpora": [[part.name, part.corpus.identity()] for part in self.corpora]}

    def check(self) -> None:
        for part in self.corpora:
            part.corpus.check()


PATH_KINDS: dict[str, tuple[type[CorpusConfig], str]] = {
    "manifest": (ManifestConfig, "path"),
    "folder": (FolderConfig, "path"),
    "tfds": (TFDSConfig, "name"),
    "tasks": (TaskCorpusConfig, "path"),
}


def parse_corpus(spec: str) -> CorpusConfig:
    """The config of `world`, `world:hours=1,speakers=4`, `manifest:PATH`, `folder:PATH`, `tfds:NAME` or `tasks:PATH`.

    Several words of one option are joined by a plus: `world:styles=rate+energy`.
    """
    kind, _, rest = spec.partition(":")
    if kind in PATH_KINDS:
        cls, field = PATH_KINDS[kind]
        require(bool(rest), "corpus", spec, f"write {kind}:{field.upper()}")
        config = cls(**{field: rest})
        config.check()
        return config
    if kind != "world":
        known = ("world", *PATH_KINDS)
        raise UserError(f"corpus {spec!r}: the kind is one of {', '.join(known)}{nearest(kind, known)}")
    return WorldConfig(**dict(_option(WorldConfig, item) for item in rest.split(",") if item))


def _option(cls: type[CorpusConfig], item: str) -> tuple[str, Any]:
    """One `name=value` with the type of the field."""
    name, equals, text = item.partition("=")
    types = {field.name: field.type for field in dataclasses.fields(cls)}
    if not equals or name not in types:
        raise UserError(f"corpus option {item!r}: write name=value, names are {', '.join(types)}{nearest(name, types)}")
    if types[name] == tuple[str, ...]:
        return name, tuple(word for word in text.split("+") if word)
    try:
        return name, types[name](text)
    except ValueError:
        raise UserError(f"corpus option {item!r}: {name} is a number ({types[name].__name__})") from None


def _near_path(path: str) -> str:
    parent = Path(path).parent
    return nearest(path, [str(item) for item in parent.iterdir()]) if parent.is_dir() else ""
