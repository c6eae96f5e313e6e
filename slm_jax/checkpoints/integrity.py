"""Hashes of files, so that damage is seen before its numbers are used."""

import hashlib
import json
from typing import Any

from slm_jax.core.paths import AnyPath, files_below, write_whole

SEAL = "integrity.json"
# Orbax writes its times into this file once more when it renames the folder; nothing depends on them.
VOLATILE = ("_CHECKPOINT_METADATA", "commit_success.txt")


def file_hash(path: AnyPath) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def file_hashes(folder: AnyPath) -> dict[str, str]:
    """SHA-256 by relative path of every file below `folder` but the seal and what changes after it."""
    files = (path for path in files_below(folder) if path.name not in (SEAL, *VOLATILE))
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def seal(folder: AnyPath) -> None:
    """Write the hashes of all files of `folder` into its seal."""
    write_json(folder / SEAL, {"format": 1, "sha256": file_hashes(folder)})


def find_damage(folder: AnyPath) -> str | None:
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


def write_json(path: AnyPath, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of one."""
    write_whole(path, json.dumps(value, indent=1))
