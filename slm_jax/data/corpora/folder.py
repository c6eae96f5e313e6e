"""Folders: audio files, and their texts beside them."""

import hashlib
import os
from collections import Counter
from pathlib import Path

from slm_jax.audio.formats import READ, UNREAD
from slm_jax.data.corpora.manifest import file_stamp
from slm_jax.data.corpora.recordings import Entry, Listing, Rejection, unique
from slm_jax.data.corpora.settings import FolderConfig


def read_folder(config: FolderConfig) -> Listing:
    """The audio files below a folder, sorted by name; the id is the path below it without the suffix.

    The text is that of the file of the same name that ends in `.txt`, in UTF-8. The first folder below is taken as the
    speaker when there is one. Files of sound that cannot be read (`audio.formats`) are counted by suffix.
    """
    root = Path(config.path)
    entries, rejected, digest = [], [], hashlib.sha256()
    paths = _paths(root)
    for path in paths:
        if path.suffix.lower() not in READ:
            continue
        relative = path.relative_to(root)
        text_path = path.with_suffix(".txt")
        shown = os.fsencode(relative).decode(errors="backslashreplace")
        digest.update(f"{shown} {file_stamp(path)} {file_stamp(text_path)}".encode())
        try:
            text = text_path.read_text(encoding="utf-8-sig").strip() if text_path.is_file() else None
        except UnicodeDecodeError as error:
            rejected.append(Rejection(shown, "bad_encoding", str(error)))
            continue
        except PermissionError as error:
            rejected.append(Rejection(shown, "no_permission", str(error)))
            continue
        speaker = shown.split("/")[0] if len(relative.parts) > 1 else ""
        entries.append(Entry(id=shown.removesuffix(path.suffix), path=str(path), text=text or None, speaker=speaker))
    unread = Counter(path.suffix.lower() for path in paths if path.suffix.lower() in UNREAD)
    return unique(Listing(entries, rejected, digest.hexdigest(), dict(sorted(unread.items()))))


def _paths(root: Path) -> list[Path]:
    """Everything that is called like an audio file, folders and dead links included: they are rejected by name."""
    found = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        found += [Path(folder) / name for name in (*folders, *files) if Path(name).suffix.lower() in READ | UNREAD]
    return sorted(found)
