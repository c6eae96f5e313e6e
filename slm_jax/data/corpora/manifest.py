"""Manifests: JSON lines in NeMo's style."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from slm_jax.data.corpora.conversations import BadMessages, Clip, nemo_turns, to_text, turns_of
from slm_jax.data.corpora.recordings import Entry, Listing, Rejection, unique
from slm_jax.data.corpora.settings import ManifestConfig
from slm_jax.data.corpora.splits import SPLIT_NAMES

KNOWN = ("audio_filepath", "duration", "offset", "text", "id", "speaker", "lang", "split", "messages", "conversations")


class BadLine(ValueError):
    """A line that cannot be used; `reason` is a key of `recordings.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_manifest(config: ManifestConfig) -> Listing:
    """The items of a manifest; a byte-order mark, CRLF and empty lines are fine.

    Without an `offset` the whole file is used and a `duration` that differs is remarked; with one, the stretch from
    `offset` of `duration` seconds is cut out and must lie within the file. Paths may be absolute, or relative to the
    manifest's folder, `..` included.

    `messages`: turns (`core.messages.Turn` as JSON) whose times count from the start of the item. `conversations`:
    NeMo's form, instead of `audio_filepath`: its clips are laid end to end and make the item's waveform.
    """
    path = Path(config.path)
    content = path.read_bytes()
    entries, rejected, digest = [], [], hashlib.sha256(content)
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = _entry(_object(line), path.parent, number)
        except (BadLine, BadMessages) as error:
            rejected.append(Rejection(f"line {number}", error.reason, str(error)))
            continue
        entries.append(entry)
        for file in [clip.path for clip in entry.clips] or [entry.path]:
            digest.update(file_stamp(Path(file)).encode())
    return unique(Listing(entries, rejected, digest.hexdigest()))


def file_stamp(path: Path) -> str:
    """Size and time of change of a file, or that it is not there: enough to see that it was replaced."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return "absent"
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadLine("bad_encoding", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise BadLine("bad_json", str(error)) from error
    if not isinstance(value, dict):
        raise BadLine("not_an_object", f"found {type(value).__name__}")
    return value


def _entry(row: dict[str, Any], folder: Path, number: int) -> Entry:
    text, split = _text(row, "text"), (_text(row, "split") or "").lower()
    if split and split not in SPLIT_NAMES:
        raise BadLine("bad_split", f"split is {split!r}: one of {', '.join(SPLIT_NAMES)}")
    others = {key: value for key, value in row.items() if key not in KNOWN}
    found = Entry(
        id=_text(row, "id") or "",
        path="",
        text=text if text and text.strip() else None,
        speaker=_text(row, "speaker") or "",
        lang=_text(row, "lang") or "",
        split=SPLIT_NAMES.get(split, ""),
        extra=json.dumps(others, ensure_ascii=False, sort_keys=True),
    )
    if row.get("conversations") is not None:
        return _conversation(row, found, folder, number)
    return _recording(row, found, folder)


def _recording(row: dict[str, Any], entry: Entry, folder: Path) -> Entry:
    """An item that is one file or a stretch of it."""
    name = _text(row, "audio_filepath")
    if not name:
        raise BadLine("missing_key", f"audio_filepath is absent or empty; keys are {', '.join(map(repr, row))}")
    duration, offset = _seconds(row, "duration", "bad_duration"), _seconds(row, "offset", "bad_offset")
    if duration is not None and duration <= 0:
        raise BadLine("bad_duration", f"duration is {duration}")
    turns = () if row.get("messages") is None else turns_of(row["messages"])
    return entry._replace(
        id=entry.id or (name if offset is None else f"{name}@{offset:g}"),
        path=str(folder / name),
        text=entry.text or " ".join(turn.text for turn in turns if turn.is_heard and turn.text) or None,
        part=None if offset is None else (offset, duration),
        stated_s=duration if offset is None else None,
        messages=to_text(turns) if turns else "",
    )


def _conversation(row: dict[str, Any], entry: Entry, folder: Path, number: int) -> Entry:
    """An item whose clips are laid end to end."""
    for key in ("audio_filepath", "messages"):
        if row.get(key) is not None:
            raise BadMessages("bad_messages", f"conversations and {key}: one of them says what is heard")
    pairs = nemo_turns(row["conversations"])
    clips = tuple(Clip(str(folder / clip.path), *clip[1:]) for _, clip in pairs if clip is not None)
    return entry._replace(
        id=entry.id or f"conversation-{number}",
        path=clips[0].path,
        text=entry.text or " ".join(turn.text for turn, clip in pairs if clip is not None and turn.text) or None,
        messages=to_text([turn for turn, _ in pairs]),
        clips=clips,
    )


def _text(row: dict[str, Any], key: str) -> str | None:
    """A text value; numbers count as texts in ids and speakers."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and key in ("id", "speaker"):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise BadLine("bad_type", f"{key} is {value!r}: a text is needed")
    if value is not None and "\0" in value:
        raise BadLine("bad_type", f"{key} holds a NUL character")
    return value


def _seconds(row: dict[str, Any], key: str, reason: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadLine("bad_type", f"{key} is {value!r}: a number of seconds is needed")
    if not math.isfinite(value):
        raise BadLine(reason, f"{key} is {value!r}")
    return float(value)
