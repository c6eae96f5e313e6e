"""`memory://` as a scheme of `etils.epath`: an object store that needs neither a network nor another package."""

import os
from typing import Any

import fsspec
from etils import epath
from etils.epath import backend, gpath


class _MemoryBackend(type(backend.fsspec_backend)):
    """fsspec's memory file system."""

    def fs(self, path: Any) -> Any:
        return fsspec.filesystem("memory")


_BACKEND = _MemoryBackend()


@epath.register_path_cls("memory://")
class MemoryPath(gpath.PosixGPath):
    """A path of which `pathlib` sees `memory:` as the first folder."""

    @property
    def _uri_scheme(self) -> str:
        return "memory"

    @property
    def _backend(self) -> Any:
        return _BACKEND

    @property
    def _path_str(self) -> str:
        whole = self.parts[:1] == ("memory:",)
        return "memory://" + "/".join(self.parts[1:]) if whole else "/".join(self.parts)

    def __fspath__(self) -> str:
        return self._path_str


def clear() -> None:
    """Forget everything that was stored."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    assert os.fspath(epath.Path("memory://a/b")) == "memory://a/b"
