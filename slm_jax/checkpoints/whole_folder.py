"""A folder that appears whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slm_jax.core.errors import UserError


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write into that becomes `folder` when the block ends well and vanishes when it does not.

    What a killed process left behind is cleared by the next one. Raises `UserError` when `folder` holds something
    already, when another process is writing it, or when the disk refuses.
    """
    folder = Path(folder).absolute()
    refuse_existing(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _held(partial):
            try:
                _clear(partial)
                yield partial
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder} could not be written: {error.strerror or error}") from error


def refuse_existing(folder: Path) -> None:
    """Raise `UserError` when there is something at `folder` already; an empty folder may be replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: name a new folder")


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """The kernel's lock on a folder, which goes with its process."""
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{partial} is being written by another process") from None
        yield
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
