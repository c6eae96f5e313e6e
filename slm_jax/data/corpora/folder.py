"""Folders: audio files, and their texts beside them."""

import hashlib
import os
from pathlib import Path

from slm_jax.data.corpora.manifest import file_stamp
from slm_jax.data.corpora.recordings import Entry, Listing, Rejection, unique
from slm_jax.data.corpora.settings import FolderConfig

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def read_folder(config: FolderConfig) -> Listing:
    """The audio files below a folder, sorted by name; the id is the path below it without the suffix.

    The text is that of the file of the same name that ends in `.txt`, in UTF-8. The first folder below is taken as the
    speaker when there is one.
    """
    root = Path(config.path)
    entries, rejected, digest = [], [], hashlib.sha256()
    for path in _audio_paths(root):
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
        speaker = relative.parts[0] if len(relative.parts) > 1 else ""
        entries.append(Entry(id=shown.removesuffix(path.suffix), path=str(path), text=text or None, speaker=speaker))
    return unique(Listing(entries, rejected, digest.hexdigest()))


def _audio_paths(root: Path) -> list[Path]:
    """Everything that is called like an audio file, folders and dead links included: they are rejected by name."""
    found = []
    for folder, folders, files in os.walk(root):
        folders.sort()
        found += [Path(folder) / name for name in (*folders, *files) if Path(name).suffix.lower() in SUFFIXES]
    return sorted(found)
