"""Files that grow, such as logs, beside a folder of an object store, which can hold whole objects only."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from slm_jax.core.paths import AnyPath, copy_file, files_below

EVERY_S = 30.0
"""A store gets what has changed at most this often: so much of a log is lost with its machine."""


class Mirror:
    """While entered, `path` is a folder of this machine whose files are copied to `folder` now and then.

    It is `folder` itself when that is here. Otherwise it begins with the files `names` as the store has them. With
    `active` False nothing is copied to the store (hosts that write nothing).
    """

    def __init__(self, folder: AnyPath, names: Sequence[str], active: bool = True) -> None:
        self._folder, self._names, self._active = folder, names, active
        self._sent: dict[Path, tuple[int, int]] = {}
        self._sent_at = time.monotonic()
        self.path = folder if isinstance(folder, Path) else Path(tempfile.mkdtemp(prefix="slm_jax_"))

    def __enter__(self) -> "Mirror":
        if self.path != self._folder:
            for name in self._names:
                if (self._folder / name).exists():
                    copy_file(self._folder / name, self.path / name)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.path != self._folder:
            self._send()
            shutil.rmtree(self.path, ignore_errors=True)

    def sync(self) -> None:
        """Copy what has changed, unless that was done a moment ago."""
        if self.path != self._folder and time.monotonic() - self._sent_at > EVERY_S:
            self._send()

    def _send(self) -> None:
        for file in files_below(self.path) if self._active else ():
            stat = Path(file).stat()
            state = (stat.st_size, stat.st_mtime_ns)
            if self._sent.get(Path(file)) != state:
                copy_file(file, self._folder / file.relative_to(self.path).as_posix())
                self._sent[Path(file)] = state
        self._sent_at = time.monotonic()
