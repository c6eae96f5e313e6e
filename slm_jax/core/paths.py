"""Where files are: folders of this machine, and of object stores behind a scheme such as `gs://`.

What differs between the two is here and in `core.mirror`, so that nobody else asks which one a path is. A store has
whole objects only: no renaming of folders in one step, no appending, no locks.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from etils import epath

from slm_jax.core.errors import UserError, require

Place = str | os.PathLike[str]
"""What names a path."""
AnyPath = Path | epath.Path
"""A folder or file here (`pathlib`) or in a store (`epath`); both have the methods of `pathlib.Path` used here."""

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
"""Scheme -> the package with which fsspec reads and writes it."""
COPY_BYTES = 2**20
# `pathlib` makes one slash of two, so that an option of type Path arrives as `gs:/bucket/run`.
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")


def as_path(place: Place) -> AnyPath:
    """A path here, or the path in a store that `scheme://...` names; `file://` is a path here.

    Raises `UserError` for a scheme that is not known or whose package is not installed.
    """
    found = _REMOTE.fullmatch(os.fspath(place))
    if found is None:
        return Path(place)
    scheme, rest = found.groups()
    if scheme == "file":
        return Path("/" + rest)
    package = PACKAGES.get(scheme)
    if package is not None:
        rule = f"needs the package {package}, which is not installed"
        require(importlib.util.find_spec(package) is not None, "path", f"{scheme}://{rest}", rule)
        fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False  # others write there as well
    try:
        return epath.Path(f"{scheme}://{rest}")
    except KeyError:
        known = ", ".join(f"{name}://" for name in ("file", *PACKAGES))
        raise UserError(f"path is '{scheme}://{rest}': its scheme must be one of {known}") from None


def is_local(path: AnyPath) -> bool:
    """False in a store."""
    return isinstance(path, Path)


def absolute(place: Place) -> AnyPath:
    """`as_path` that does not depend on the current folder."""
    path = as_path(place)
    return path.absolute() if isinstance(path, Path) else path


def uri(path: AnyPath) -> str:
    """With its scheme, as TensorStore wants it."""
    return f"file://{path.absolute()}" if isinstance(path, Path) else os.fspath(path)


def file_size(path: AnyPath) -> int | None:
    """Bytes of a file; None when there is none."""
    if not path.is_file():
        return None
    return path.stat().st_size if isinstance(path, Path) else path.stat().length


def modified(path: AnyPath) -> float:
    """When a file was written, in seconds of the system's clock."""
    return path.stat().st_mtime if isinstance(path, Path) else float(path.stat().mtime)


def entries(folder: AnyPath) -> list[AnyPath]:
    """What is in a folder; nothing in one that is not there, as an empty one of a store never is."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def files_below(folder: AnyPath) -> list[AnyPath]:
    """All files below a folder, sorted."""
    found: list[AnyPath] = []
    for path in entries(folder):
        found += files_below(path) if path.is_dir() else [path]
    return sorted(found)


def copy_file(source: AnyPath, target: AnyPath) -> None:
    """The bytes of a file to another place, whose folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reading, target.open("wb") as writing:
        while part := reading.read(COPY_BYTES):
            writing.write(part)  # type: ignore[arg-type]


def remove_tree(folder: AnyPath) -> None:
    """Delete a folder and what is in it, and complain about nothing."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.rmtree(missing_ok=True)


def write_whole(path: AnyPath, text: str) -> None:
    """Write a file so that a reader finds the old one or the new one, never half of one."""
    if not isinstance(path, Path):
        path.write_text(text)  # an object appears when it is whole
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def local_copy(path: AnyPath, key: str) -> Path:
    """The file itself, or a copy of a store's object that is kept under `key`, which must change with its content.

    The copies are in `$SLM_JAX_CACHE/remote`, by default `~/.cache/slm_jax/remote`.
    """
    if isinstance(path, Path):
        return path
    copy = cache_folder() / "remote" / key / path.name
    if not copy.exists():
        partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
        copy_file(path, partial)
        os.replace(partial, copy)
    return copy


def local_folder(folder: AnyPath, wanted: Callable[[str], bool]) -> Path:
    """The folder itself, or one with copies of those files of a store's folder whose names are `wanted`.

    Their content must never change: they are copied once.
    """
    if isinstance(folder, Path):
        return folder
    key = _hash(folder)
    for path in entries(folder):
        if wanted(path.name):
            local_copy(path, key)
    return cache_folder() / "remote" / key


def lock_file(folder: AnyPath) -> Path:
    """A file of this machine to lock in the name of `folder`: inside it where that is possible."""
    if isinstance(folder, Path):
        return folder / "lock"
    place = cache_folder() / "locks" / _hash(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _hash(path: AnyPath) -> str:
    return hashlib.sha256(os.fspath(path).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """What can be made again: `$SLM_JAX_CACHE` or `~/.cache/slm_jax`."""
    return Path(os.environ.get("SLM_JAX_CACHE") or Path.home() / ".cache" / "slm_jax")


@contextmanager
def beside(folder: AnyPath) -> Iterator[Path]:
    """An empty folder of this machine to write into, near `folder` if that is here too; it is gone afterwards."""
    if isinstance(folder, Path):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.writing-*"):  # by a killed process
            shutil.rmtree(left, ignore_errors=True)
        writing = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
        writing.mkdir()
    else:
        writing = Path(tempfile.mkdtemp(prefix="slm_jax_"))
    try:
        yield writing
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def move_into_place(written: Path, folder: AnyPath, last: str) -> None:
    """Make `written` be `folder`, in place of what is there.

    Here two renames do it. In a store the file `last`, by which a reader knows the folder, goes first and comes last.
    """
    if isinstance(folder, Path):
        old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
        if folder.exists():
            folder.rename(old)  # a folder cannot be replaced in one step; between the two renames there is none
        written.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        return
    (folder / last).unlink(missing_ok=True)
    remove_tree(folder)
    for path in sorted(files_below(written), key=lambda path: path.name == last):
        copy_file(path, folder / path.relative_to(written).as_posix())
