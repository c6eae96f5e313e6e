"""Recorded speech, item by item: read, checked, accepted with warnings or rejected with a reason."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_jax.audio.files import REASONS as AUDIO_REASONS
from slm_jax.audio.files import AudioError, check_length, read_audio, to_int16
from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.core.messages import Turn
from slm_jax.data.corpora.conversations import REASONS as MESSAGES_REASONS
from slm_jax.data.corpora.conversations import BadMessages, Clip, from_text, placed, to_text, within
from slm_jax.data.corpora.settings import RecordingsConfig
from slm_jax.data.corpora.splits import split_key, split_of

PART = 32
"""Items per part."""
DURATION_TOLERANCE_S = 0.1
"""A stated duration may differ from the real one by this much, or by 2 per cent."""

REASONS = (
    AUDIO_REASONS
    | MESSAGES_REASONS
    | {
        "bad_json": "a line that is not JSON",
        "bad_encoding": "a line or text that is not UTF-8",
        "not_an_object": "a line that is JSON but not an object",
        "missing_key": "audio_filepath is absent or empty",
        "bad_type": "a value of the wrong type",
        "bad_split": "a split of an unknown name",
        "duplicate_id": "an id that was used before; the first one is kept",
        "null_text": "no text, and texts are required",
        "decode_error": "the data set cannot decode the item",
    }
)
"""Why an item is rejected."""
WARNINGS = {
    "null_text": "no text: kept with an empty one",
    "duration_differs": "the stated duration is not that of the file: the whole file is used",
}
"""What is remarked of an accepted item."""


class Rejection(NamedTuple):
    """An item that is not used: which, why (a key of `REASONS`), and what exactly was seen."""

    item: str
    reason: str
    detail: str


class Entry(NamedTuple):
    """One item to read.

    `part`: seconds of offset and duration to cut out, None for the whole file. `messages`: turns as JSON text, empty
    where none are given. `clips`: what is laid end to end instead of one file; as many as turns are heard.
    """

    id: str
    path: str
    text: str | None = None
    speaker: str = ""
    lang: str = ""
    split: str = ""
    part: tuple[float, float | None] | None = None
    stated_s: float | None = None
    extra: str = "{}"
    messages: str = ""
    clips: tuple[Clip, ...] = ()


class Listing(NamedTuple):
    """What a manifest or folder holds: items to read, items rejected unread, and files that determine the content.

    `unread`: how many files there are of kinds of sound that cannot be read, by suffix.
    """

    entries: list[Entry]
    rejected: list[Rejection]
    fingerprint: str
    unread: Mapping[str, int] = {}


class Job(NamedTuple):
    """One part: the settings, as JSON text, and the items to read."""

    settings: str
    entries: tuple[Entry, ...]


def unique(listing: Listing) -> Listing:
    """The listing with each id once: later ones are rejected."""
    seen: dict[str, Entry] = {}
    rejected = list(listing.rejected)
    for entry in listing.entries:
        first = seen.setdefault(entry.id, entry)
        if first is not entry:
            rejected.append(Rejection(entry.id, "duplicate_id", f"{entry.path} after {first.path}"))
    return listing._replace(entries=list(seen.values()), rejected=rejected)


def jobs(config: RecordingsConfig, entries: list[Entry]) -> list[Job]:
    """The parts of a listing."""
    settings = json.dumps(config.to_json(), sort_keys=True)
    return [Job(settings, tuple(entries[i : i + PART])) for i in range(0, len(entries), PART)]


def read_entries(job: Job) -> list[dict[str, Any]]:
    """A record for every item: with samples, or with the reason why not."""
    config = from_json(json.loads(job.settings))
    if not isinstance(config, RecordingsConfig):
        raise UserError(f"recordings settings are a {type(config).__name__}: they must be a RecordingsConfig")
    return [read_entry(entry, config) for entry in job.entries]


def read_entry(entry: Entry, config: RecordingsConfig) -> dict[str, Any]:
    """The record of one item: `samples` at the corpus' rate and `warnings`, or `rejected` and `detail`."""
    if entry.text is None and config.require_text:
        return rejection(entry.id, "null_text", entry.path)
    try:
        samples, turns = _clips(entry, config) if entry.clips else _whole(entry, config)
        turns = within(turns, len(samples) / config.rate_hz, config.channels)
    except (AudioError, BadMessages) as error:
        return rejection(entry.id, error.reason, str(error))
    warnings = ["null_text"] if entry.text is None else []
    if entry.stated_s is not None and _differs(entry.stated_s, len(samples) / config.rate_hz):
        warnings.append("duration_differs")
    entry = entry._replace(messages=to_text(turns) if turns else "")
    return accepted(entry, samples, config) | {"warnings": warnings}


def _whole(entry: Entry, config: RecordingsConfig) -> tuple[np.ndarray, tuple[Turn, ...]]:
    """Samples of the file, or the stretch of it, and the turns in it."""
    offset_s, duration_s = entry.part or (0.0, None)
    samples = _read(Clip(entry.path, offset_s, duration_s), config, config.min_s)
    return samples, from_text(entry.messages) if entry.messages else ()


def _clips(entry: Entry, config: RecordingsConfig) -> tuple[np.ndarray, tuple[Turn, ...]]:
    """Samples of the clips end to end, and the turns where they then are."""
    read = [_read(clip, config, 0.0) for clip in entry.clips]
    samples, turns = np.concatenate(read), from_text(entry.messages)
    check_length(len(samples) / config.rate_hz, config.min_s, config.max_s, f"the clips of {entry.id!r}")
    lengths = iter([len(part) / config.rate_hz for part in read])
    return samples, placed(turns, [next(lengths) if turn.is_heard else None for turn in turns])


def _read(clip: Clip, config: RecordingsConfig, min_s: float) -> np.ndarray:
    return read_audio(
        clip.path,
        rate_hz=config.rate_hz,
        offset_s=clip.offset_s,
        duration_s=clip.duration_s,
        min_s=min_s,
        max_s=config.max_s,
        channels=config.channels,
    )


def accepted(entry: Entry, samples: Any, config: RecordingsConfig) -> dict[str, Any]:
    """The record of an item whose samples `[N]` or `[N, channels]` at the corpus' rate are good."""
    text = " ".join((entry.text or "").split())
    said = {"speaker": entry.speaker, "text": text}
    return {
        "id": entry.id,
        "kind": "recording",
        "split": entry.split or split_of(entry.id, config, **said),
        "group": "" if entry.split else split_key(entry.id, config, **said),
        "text": text,
        "speaker": entry.speaker,
        "lang": entry.lang,
        "source": str(Path(entry.path)),
        "extra": entry.extra,
        "messages": entry.messages,
        "seconds": len(samples) / config.rate_hz,
        "samples": to_int16(samples),
    }


def rejection(item: str, reason: str, detail: str) -> dict[str, Any]:
    """The record of an item that is not used."""
    return {"id": item, "rejected": reason, "detail": detail}


def _differs(stated_s: float, real_s: float) -> bool:
    return abs(stated_s - real_s) > max(DURATION_TOLERANCE_S, 0.02 * real_s)
