"""The folder of a run: what each stage consumed and made, by hash, and a lock against two writers."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slm_jax.checkpoints.integrity import file_hash, write_json
from slm_jax.core.config import Config, content_hash, flatten, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import AnyPath, Place, as_path, files_below, lock_file

BEGUN, DONE = "stage.json", "done.json"


class RunFolder:
    """A run: `stages/<name>/` holds a stage's config, the hashes of what it consumed, and its artifacts."""

    def __init__(self, path: Place) -> None:
        self.path = as_path(path)

    def stage(self, name: str) -> "StageFolder":
        """The folder of a stage, which need not exist yet."""
        plain = bool(name) and all(char.isalnum() or char in "-_." for char in name) and not name.startswith(".")
        require(plain, "stage name", name, "must be letters, digits, '-', '_' or '.'")
        return StageFolder(self.path / "stages" / name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; raises `UserError` naming the process that holds it already.

        The lock is the kernel's (`flock`): it goes with its process, however that ends, so that none is ever stale. A
        run in a store is held against processes of this machine only.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with lock_file(self.path).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip() or "another process"
                message = f"run folder {str(self.path)!r} is in use by {holder}: wait for it or stop it"
                raise UserError(message) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
            file.truncate(0)


class StageFolder:
    """One stage of a run."""

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self.name = path.name

    def begin(self, config: Config, consumed: dict[str, str]) -> None:
        """Record what the stage is made from; going on with the same is allowed, with anything else refused.

        Fields that a config calls free may differ. `consumed` maps the names of artifacts of earlier stages to their
        hashes. Raises `UserError` that lists the differences.
        """
        record = {"config": config.to_json(), "config_hash": config.content_hash(), "consumed": consumed}
        if (self.path / BEGUN).exists():
            self._refuse_other({**record, "config": config.binding_json()})
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / BEGUN, record)

    def begun(self) -> dict[str, Any]:
        """What `begin` recorded: `config`, `config_hash`, `consumed`."""
        return _read(self.path / BEGUN)

    def finish(self, artifacts: Sequence[str]) -> str:
        """Record the artifacts (files or folders, relative to `path`) with their hashes; returns `artifact_hash`."""
        hashes: dict[str, str] = {}
        for artifact in artifacts:
            target = self.path / artifact
            inside = ".." not in Path(artifact).parts and not Path(artifact).is_absolute()
            require(inside and target.exists(), "artifact", artifact, f"must exist inside {self.path}")
            files = files_below(target) if target.is_dir() else [target]
            hashes |= {file.relative_to(self.path).as_posix(): file_hash(file) for file in files}
        write_json(self.path / DONE, {"sha256": hashes, "artifact_hash": content_hash(hashes)})
        return self.artifact_hash()

    def is_done(self) -> bool:
        """True after `finish`."""
        return (self.path / DONE).exists()

    def artifact_hash(self) -> str:
        """One hash of all artifacts; raises `UserError` when the stage is not done."""
        require(self.is_done(), f"stage {self.name!r}", "not done", "it must be done before others use it")
        return _read(self.path / DONE)["artifact_hash"]

    def verify(self) -> None:
        """Raise `UserError` naming the first artifact that is missing or has other bytes than `finish` saw."""
        for name, digest in _read(self.path / DONE)["sha256"].items():
            file = self.path / name
            require(file.is_file(), f"artifact of stage {self.name!r}", name, "is missing; delete the stage to redo it")
            same = file_hash(file) == digest
            require(same, f"artifact of stage {self.name!r}", name, "has changed; delete the stage to redo it")

    def _refuse_other(self, record: dict[str, Any]) -> None:
        begun = self.begun()
        lines = differences({**begun, "config": _binding(begun["config"])}, record, ignore=("config_hash",))
        if lines:
            raise UserError(
                f"stage {self.name!r} in {self.path} was begun with other settings: {'; '.join(lines)}. "
                "Use another --workdir, or delete the folder of this stage and of those after it"
            )


def differences(old: dict[str, Any], new: dict[str, Any], ignore: Sequence[str] = ()) -> list[str]:
    """Lines such as `config.steps: 10 -> 20` for every entry that differs and does not start with one of `ignore`."""
    before, after = flatten(json.loads(json.dumps(old))), flatten(json.loads(json.dumps(new)))
    paths = [path for path in sorted(before.keys() | after.keys()) if not path.startswith(tuple(ignore))]
    pairs = [(path, before.get(path, "(absent)"), after.get(path, "(absent)")) for path in paths]
    return [f"{path}: {was} -> {now}" for path, was, now in pairs if was != now]


def _binding(config: dict[str, Any]) -> dict[str, Any]:
    """What counts of a stored config, fields that came later at their defaults; as it is when it cannot be read."""
    try:
        return from_json(config).binding_json()
    except (UserError, TypeError):
        return config


def _read(path: AnyPath) -> dict[str, Any]:
    require(path.is_file(), "stage file", str(path), "does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"stage file {str(path)!r} is damaged ({error}); delete the stage to redo it") from error
