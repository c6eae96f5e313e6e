"""The parts of a stage: what was found, the hash of each, and what training is handed.

`parts.json` in a stage's folder says of each part where its weights came from, their hash and their config, so that
going on with others is refused and a run that was moved can say what it misses.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from flax.core import meta

from slm_jax.checkpoints.integrity import write_json
from slm_jax.checkpoints.lazy import part_hash
from slm_jax.core.config import Config, from_json
from slm_jax.core.errors import UserError, require
from slm_jax.core.part_source import PartSource
from slm_jax.core.paths import AnyPath, files_below, is_local
from slm_jax.core.trees import joined
from slm_jax.interop.parts import OpenedPart
from slm_jax.parallel.hosts import on_first_host
from slm_jax.training.run_folder import StageFolder

RECORD = "parts.json"
PLACE = "parts"
"""Folder of a run in which a part is looked for that is not where its source says."""
Open = Callable[[PartSource], OpenedPart]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of one stage. `configs`: by path. `open`: finds a part and reads nothing of it."""

    folder: StageFolder
    sources: tuple[PartSource, ...]
    configs: dict[str, Config]
    hashes: dict[str, str]
    open: Open

    @property
    def frozen(self) -> dict[str, Any]:
        """The frozen parts in the places of their paths, `{"frozen": {"lm": ...}}`: lazy leaves in their boxes.

        Raises `UserError` when weights are not those that the stage began with.
        """
        return self._placed([source for source in self.sources if source.frozen])

    def start(self) -> dict[str, Any]:
        """Those that are trained on, below `params`; raises `UserError` like `frozen`."""
        return self._placed([source for source in self.sources if not source.frozen]).get("params", {})

    def handed_on(self, frozen: Any, start_from: Any) -> tuple[Any, Any]:
        """What training is handed: `frozen` with the frozen parts in it, and where it starts.

        What a plan starts from itself counts before the parts that are trained on.
        """
        if any(not source.frozen for source in self.sources):
            own = start_from
            start_from = self.start if own is None else lambda: self._start_with(own)
        return joined(frozen or {}, self.frozen), start_from

    def _start_with(self, own: Any) -> dict[str, Any]:
        given = own() if callable(own) else own
        kept = {name: tree for name, tree in self.start().items() if name not in given["params"]}
        return {**given, "params": {**kept, **given["params"]}}

    @property
    def artifacts(self) -> list[str]:
        """What a stage with parts leaves in its folder."""
        return [RECORD]

    @property
    def meta(self) -> dict[str, Any]:
        """What must agree when the stage resumes."""
        return {"parts": self.hashes}

    def _placed(self, sources: Sequence[PartSource]) -> dict[str, Any]:
        return joined(*(self._part(source) for source in sources))

    def _part(self, source: PartSource) -> dict[str, Any]:
        part = self.open(source)
        check_hash(part, self.hashes[source.path], self.folder)
        return at_path(source.path, part.params)


def begin_parts(sources: Sequence[PartSource], folder: StageFolder, open_part: Open) -> Parts:
    """The parts of a stage, written down on the first call in its folder; afterwards as they are written there."""
    paths = [source.path for source in sources]
    for path in paths:
        require(paths.count(path) == 1, "parts", path, "every part needs a path of its own")
    if on_first_host(lambda: recorded(folder)) is None:
        found = {source.path: _entry(open_part(source)) for source in sources}
        on_first_host(lambda: write_json(folder.path / RECORD, found))
    record = on_first_host(lambda: recorded(folder))
    configs = {path: from_json(record[path]["config"]) for path in paths}
    return Parts(folder, tuple(sources), configs, {path: record[path]["hash"] for path in paths}, open_part)


def recorded(folder: StageFolder) -> dict[str, Any] | None:
    """What a stage with parts wrote down; None when it has none."""
    path = folder.path / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def recorded_configs(folder: StageFolder) -> dict[str, Config]:
    """The configs by which the parts of a stage run, by path."""
    return {path: from_json(entry["config"]) for path, entry in (recorded(folder) or {}).items()}


def recorded_sources(folder: StageFolder) -> tuple[PartSource, ...]:
    """The parts that a stage wrote down."""
    return tuple(_source(entry["part"]) for entry in (recorded(folder) or {}).values())


def check_hash(part: OpenedPart, begun: str, folder: StageFolder) -> None:
    """Raise `UserError` with both hashes when the weights of a part are not those that the stage began with."""
    source = part.source
    rule = f"stage {folder.name!r} began with the weights {begun}; bring those back or take another --workdir"
    found = hash_of(part)
    require(found == begun, f"part {source.path!r}: the hash of {source.source!r}", found, rule)


_KNOWN: dict[tuple, str] = {}
"""Hashes of this process, by the files that they were read from."""


def hash_of(part: OpenedPart) -> str:
    """`part_hash` of the weights in the place of a part, once per process unless a file there changes."""
    key = (str(part.place), tuple(_state(file) for file in files_below(part.place)))
    if key not in _KNOWN:
        _KNOWN[key] = part_hash(meta.unbox(part.params))
    return _KNOWN[key]


def _state(file: AnyPath) -> tuple[str, int, int]:
    """What changes with the bytes of a file here; in a store finished weights are not written again."""
    if not is_local(file):
        return str(file), 0, 0
    found = os.stat(file)
    return str(file), found.st_size, found.st_mtime_ns


def _entry(part: OpenedPart) -> dict[str, Any]:
    return {"part": part.source.to_json(), "config": part.config.to_json(), "hash": hash_of(part)}


def _source(data: dict[str, Any]) -> PartSource:
    source = from_json(data)
    if not isinstance(source, PartSource):
        raise UserError(f"{RECORD} holds a {type(source).__name__} where a PartSource belongs")
    return source


def at_path(path: str, tree: Any) -> dict[str, Any]:
    """`{"frozen": {"lm": tree}}` for the path `frozen/lm`."""
    for name in reversed(path.split("/")):
        tree = {name: tree}
    return tree
