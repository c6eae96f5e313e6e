"""Hashes of files, so that damage is seen before its numbers are used."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

SEAL = "integrity.json"
# Orbax writes its times into this file once more when it renames the folder; nothing depends on them.
VOLATILE = ("_CHECKPOINT_METADATA", "commit_success.txt")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file below `folder` but the seal and what changes after it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, *VOLATILE))
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in sorted(files)}


def seal(folder: Path) -> None:
    """Write the hashes of all files of `folder` into its seal."""
    write_json(folder / SEAL, {"format": 1, "sha256": file_hashes(folder)})


def find_damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, naming the file; None when every file is as it was sealed."""
    try:
        expected = json.loads((folder / SEAL).read_text())["sha256"]
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{SEAL} cannot be read"
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_hash(path) != digest:
            return f"{name} does not have the bytes that were written"
    return None


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
