"""Checkpoints of a run: saved in the background, sealed before they appear, verified before they are used."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from slm_jax.checkpoints.integrity import find_damage, seal
from slm_jax.checkpoints.layout import check_same, describe, nested, rebuilt
from slm_jax.checkpoints.streamed import StreamedWriters
from slm_jax.core.errors import UserError, nearest, require
from slm_jax.core.paths import AnyPath, Place, absolute, as_path, entries, is_local, remove_tree
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.hosts import from_first_host, is_first_host

log = logging.getLogger(__name__)
ARRAYS, DATA, META = "arrays", "data", "meta"
COMMITTED = "commit_success.txt"
"""By which Orbax marks a checkpoint in a store, where no folder can be renamed in one step."""


class CheckpointError(UserError):
    """A checkpoint could not be written or read; older steps are intact."""


class Restored(NamedTuple):
    """A checkpoint: trees of arrays by item name, the JSON state of the data, the JSON of whoever saved it."""

    step: int
    trees: dict[str, Any]
    data: dict[str, Any]
    meta: dict[str, Any]


class _SealingHandler(ocp.CompositeCheckpointHandler):
    """Seals the folder as the last thing before Orbax renames it to its final name.

    A checkpoint that is listed is thus always sealed: a process killed at any time leaves either no new checkpoint
    or a sealed one, and a missing seal is damage like any other.
    """

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        if is_first_host():
            seal(as_path(directory))


@ocp.args.register_with_handler(_SealingHandler, for_save=True, for_restore=True)
class _SealedItems(ocp.args.Composite):
    """The items of one checkpoint; Orbax finds the handler by this class."""


class Checkpoints:
    """The checkpoints in a folder, one sub-folder per step; the folder may be one of Google Cloud Storage (`gs://`).

    One process writes at a time. `keep` newest steps stay. A step that fails verification is renamed to
    `<step>.damaged` with a warning, and the one before it is used.
    """

    def __init__(self, folder: Place, keep: int = 3) -> None:
        require(keep >= 1, "keep", keep, "must be at least 1")
        self.folder = absolute(folder)
        storable = is_local(self.folder) or str(self.folder).startswith("gs://")
        require(storable, "checkpoint folder", str(folder), "must be a folder here or one of gs://")
        self.keep = keep
        self._writer: ocp.AsyncCheckpointer | None = None
        self._saving: int | None = None

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending, verified or not."""
        return sorted(int(path.name) for path in entries(self.folder) if path.name.isdecimal() and _complete(path))

    def latest_step(self) -> int | None:
        """The newest complete step, None when there is none."""
        return max(self.steps(), default=None)

    def path(self, step: int) -> AnyPath:
        """The folder of a step."""
        return self.folder / f"{step:08d}"

    def save(self, step: int, trees: dict[str, Any], data: dict[str, Any], meta: dict[str, Any]) -> None:
        """Copy the arrays to the host and write them in the background; returns before they are on disk.

        Raises `CheckpointError` when an earlier save failed, such as on a full disk.
        """
        self.wait()
        if step in self.steps():
            return
        writer = self._background_writer()
        items = {name: ocp.args.StandardSave(nested(tree)) for name, tree in trees.items()}
        self._saving = step
        self._guarded(lambda: writer.save(self.path(step), args=_items(trees, items, data, meta)))

    def save_streamed(self, step: int, trees: dict[str, Any], meta: dict[str, Any]) -> None:
        """Write trees of `StreamedArray`, one part after the other; returns when they are on disk.

        Raises `CheckpointError` when that fails, such as on a full disk.
        """
        self.close()
        self._clean_folder()
        writers = StreamedWriters()
        handlers: dict[str, Any] = {name: writers.handler() for name in trees}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in (ARRAYS, DATA, META)}
        items = {name: ocp.args.PyTreeSave(nested(tree)) for name, tree in trees.items()}
        self._saving = step
        with _tracebacks_hidden():
            try:
                with ocp.Checkpointer(_SealingHandler(**handlers)) as writer:
                    self._guarded(lambda: writer.save(self.path(step), args=_items(trees, items, {}, meta)))
            except BaseException:  # when interrupted, the threads that write would go on to the end
                writers.stop()
                raise

    def wait(self) -> None:
        """Block until the save in progress is on disk; raises `CheckpointError` when it failed."""
        if self._writer is not None:
            self._guarded(self._writer.wait_until_finished)
        if is_first_host():
            for step in self.steps()[: -self.keep]:
                self._remove(self.path(step))

    def close(self) -> None:
        """Wait for the last save and release the threads."""
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def restore_latest(
        self,
        abstract: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]],
        accept: Callable[[int, dict[str, Any]], None] | None = None,
        optional: Sequence[str] = (),
    ) -> Restored | None:
        """The newest undamaged checkpoint, on the shardings that the abstract trees carry; None when there is none.

        `abstract` may be a function of the checkpoint's meta, for those that were written in another form.
        `accept(step, meta)` runs before any array is read and may refuse by raising. Raises `UserError` when the
        stored arrays differ from `abstract` in paths, shapes or dtypes; an item that is `optional` is then missing
        from the result.
        """
        step = from_first_host(self._newest_sound(set_aside=True) if is_first_host() else -1)
        if step < 0:
            return None
        meta = self.read_json(step, META)
        if accept is not None:
            accept(step, meta)
        abstract = abstract(meta) if callable(abstract) else abstract
        if optional:
            stored = self.read_json(step, ARRAYS)
            abstract = {n: t for n, t in abstract.items() if n not in optional or stored.get(n) == describe(t)}
        return Restored(step, self._arrays(step, abstract), self.read_json(step, DATA), meta)

    def read_json(self, step: int, item: str) -> dict[str, Any]:
        """One of the JSON items `data`, `meta`, `arrays` of a step."""
        args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            return reader.restore(self.path(step), args=args)[item]

    def newest_sound(self) -> int:
        """The newest undamaged step; changes nothing on disk. Raises `CheckpointError` when there is none."""
        step = self._newest_sound(set_aside=False)
        if step < 0:
            newest = self.latest_step()
            why = "" if newest is None else f": {find_damage(self.path(newest))}"
            raise CheckpointError(f"{str(self.folder)!r} holds no undamaged checkpoint{why}")
        return step

    def _newest_sound(self, set_aside: bool) -> int:
        """The newest step whose files are as they were written, -1 when there is none."""
        for step in reversed(self.steps()):
            damage = find_damage(self.path(step))
            if damage is None:
                return step
            log.warning("checkpoint of step %d in %s is damaged (%s); using the one before", step, self.folder, damage)
            if set_aside:
                self.path(step).rename(_free_name(self.path(step)))
        return -1

    def _arrays(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        stored = self.read_json(step, ARRAYS)
        for name, tree in abstract.items():
            if name not in stored:
                raise UserError(f"checkpoint of step {step} has no item {name!r}{nearest(name, stored)}")
            check_same(name, stored[name], describe(tree))
        args = {name: ocp.args.StandardRestore(nested(tree)) for name, tree in abstract.items()}
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(self.path(step), args=ocp.args.Composite(**args))
        return {name: rebuilt(found[name], tree) for name, tree in abstract.items()}

    def _background_writer(self) -> ocp.AsyncCheckpointer:
        if self._writer is None:
            self._clean_folder()
            self._writer = ocp.AsyncCheckpointer(_SealingHandler())
        return self._writer

    def _clean_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if is_first_host():
            self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for path in entries(self.folder):
            if ocp.utils.TMP_DIR_SUFFIX in path.name or (path.name.isdecimal() and not _complete(path)):
                remove_tree(path)

    def _remove(self, path: AnyPath) -> None:
        """Delete a complete step, which is not listed any more from the first moment on."""
        doomed = path.with_name(f"{path.name}{ocp.utils.TMP_DIR_SUFFIX}")
        if is_local(path):
            path.rename(doomed)
            path = doomed
        else:
            (path / COMMITTED).unlink(missing_ok=True)
        remove_tree(path)

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # Orbax raises many types, ValueError for a full disk among them
            if is_first_host():
                self._remove_unfinished()
            if isinstance(error, UserError):  # from whoever makes the values of a streamed array
                raise
            raise CheckpointError(
                f"checkpoint of step {self._saving} in {self.folder} could not be written: {reason_of(error)}. "
                f"Last good checkpoint: step {self.latest_step()}"
            ) from error


def _complete(path: AnyPath) -> bool:
    """Whether Orbax has said that all of a step is there: by its name, and in a store by a file of its own."""
    return path.is_dir() if is_local(path) else (path / COMMITTED).exists()


@contextlib.contextmanager
def _tracebacks_hidden() -> Iterator[None]:
    """Orbax's threads log the traceback of an error that is raised here as well: one is enough."""
    absl = logging.getLogger("absl")

    def says_more(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    absl.addFilter(says_more)
    try:
        yield
    finally:
        absl.removeFilter(says_more)


def reason_of(error: BaseException) -> str:
    """What the system said, such as `No space left on device`, else the first line of an error of Orbax."""
    said = re.search(r"([^:]+) \[os_error_code=", str(error))
    if said:
        return said[1].strip()
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def _items(trees: dict[str, Any], items: dict[str, Any], data: dict[str, Any], meta: dict[str, Any]) -> _SealedItems:
    """The arguments of one save: `items` hold the trees, the rest is JSON."""
    described = {name: describe(tree) for name, tree in trees.items()}
    texts = {ARRAYS: described, DATA: data, META: meta}
    return _SealedItems(**items, **{name: ocp.args.JsonSave(value) for name, value in texts.items()})


def _free_name(path: AnyPath) -> AnyPath:
    """`<path>.damaged`, numbered when that is taken."""
    names = [path.with_name(f"{path.name}.damaged{number or ''}") for number in range(1000)]
    return next(name for name in names if not name.exists())


def restore_params(folder: Place, *, item: str = "params", sharding: Any = None) -> Restored:
    """Parameters alone (or another item such as `ema`) of the newest undamaged checkpoint, as nested dicts.

    Changes nothing on disk. `sharding` is that of every array, or a tree of them with the paths of the item; None puts
    all on the first local device. Raises `CheckpointError` when the folder holds no sound checkpoint.
    """
    return restore_items(folder, lambda held: (item,), sharding=sharding)


def restore_items(folder: Place, choose: Callable[[list[str]], Sequence[str]], *, sharding: Any = None) -> Restored:
    """`restore_params` of several items at once: `choose` says which of those that the checkpoint holds."""
    checkpoints = Checkpoints(folder)
    step = checkpoints.newest_sound()
    stored = checkpoints.read_json(step, ARRAYS)
    trees = {}
    for item in choose(sorted(stored)):
        require(item in stored, "item", item, f"the checkpoint of step {step} holds {sorted(stored)}")
        place = _places(sharding, stored[item])
        leaves = {
            path: jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype), sharding=place[path])
            for path, (shape, dtype) in stored[item].items()
        }
        trees[item] = nested(leaves)
    found = checkpoints._arrays(step, trees)
    return Restored(step, found, checkpoints.read_json(step, DATA), checkpoints.read_json(step, META))


def _places(sharding: Any, paths: Iterable[str]) -> dict[str, Sharding]:
    """The sharding of each array."""
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if isinstance(sharding, Sharding):
        return dict.fromkeys(paths, sharding)
    given = flatten_by_path(sharding)
    lacking = [path for path in paths if path not in given]
    require(not lacking, "sharding", lacking[:8], "there must be one for every array of the checkpoint")
    return given
