"""Audio files below a folder as it was downloaded, and the two members of each pair among them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from slm_jax.audio.files import audio_seconds
from slm_jax.audio.formats import READ
from slm_jax.core.errors import UserError

Key = TypeVar("Key")


def audio_below(folder: Path) -> list[Path]:
    """The audio files below a folder, sorted; without what archives of macOS hold beside them."""
    found: list[Path] = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        found += [Path(here) / name for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in READ)


def checked_audio(paths: Iterable[Path]) -> None:
    """Raise `AudioError` that names the first file that is missing, empty or no audio; only headers are read."""
    for path in paths:
        audio_seconds(path)


def partners(members: Mapping[Key, Sequence[tuple[bool, Path]]]) -> dict[Key, tuple[Path, Path]]:
    """(right, wrong) of each key, from its members (is it right, file).

    Raises `UserError` that names the files where a partner is missing or there is more than one.
    """
    found = {}
    for key, both in members.items():
        sides = {side: [path for right, path in both if right == side] for side in (True, False)}
        for side, name in ((True, "right"), (False, "wrong")):
            _require_one(sides[side], name, sides[not side])
        found[key] = sides[True][0], sides[False][0]
    return found


def _require_one(paths: Sequence[Path], name: str, others: Sequence[Path]) -> None:
    if not paths:
        raise UserError(f"{str(others[0])!r} has no partner: the {name} member of its pair is not there")
    if len(paths) > 1:
        shown = ", ".join(repr(str(path)) for path in paths)
        raise UserError(f"{shown} are all the {name} member of one pair: a pair has one of each")
