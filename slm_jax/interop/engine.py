"""The one engine of all tables: compared with abstract shapes first, carried out layer by layer afterwards.

`resolve` looks at names and shapes alone and lists everything that is wrong in one `MappingError`; only a plan
without a fault is carried out. Nothing larger than one layer of one weight is held by `pieces` and `export_params`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.errors import UserError, nearest
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.table import LAYER, Rule, Table
from slm_jax.interop.transforms import Shape

Read = Callable[[str], np.ndarray]
HINTS = 20
"""Faults that get a "did you mean": the comparison of all names with all names takes long."""


class MappingError(UserError):
    """All that keeps a checkpoint from fitting a model, one line each (`faults`)."""

    def __init__(self, faults: Iterable[str], what: str = "the weights do not fit the model") -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        super().__init__(f"{what}, {count}:" + "".join(f"\n  {fault}" for fault in self.faults))


class Job(NamedTuple):
    """One application of a rule: `layer` is the index on axis 0 of stacked targets, None for whole leaves."""

    rule: Rule
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    layer: int | None


class Piece(NamedTuple):
    """A finished array: the leaf at `path`, or its entry `layer` on axis 0."""

    path: str
    layer: int | None
    array: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What `resolve` found: jobs in order, the leaves to fill, the file's name of each source, pairs to compare."""

    jobs: tuple[Job, ...]
    targets: dict[str, Any]
    names: dict[str, str]
    tied: tuple[tuple[str, str], ...]


def resolve(table: Table, sources: Mapping[str, Shape], targets: Any, dtypes: Mapping[str, str] | None = None) -> Plan:
    """The plan that fills `targets` from `sources`.

    `targets`: a tree of anything with shape and dtype (`jax.eval_shape` of an init). `dtypes`: the sources' dtypes by
    name, where the file tells them. Raises `MappingError` listing every source without a rule, every target left
    unfilled, every shape or dtype that does not fit.
    """
    leaves = flatten_by_path(targets)
    names, faults = _canonical_names(table, sources)
    tied = tuple((names[copy], names[first]) for copy, first in table.tied.items() if {copy, first} <= names.keys())
    names |= {first: names[copy] for copy, first in table.tied.items() if copy in names and first not in names}
    jobs = tuple(_choose(table, leaves, names))
    shapes = {name: tuple(sources[original]) for name, original in names.items()}
    faults += _unread(table, jobs, names)
    faults += _unfilled(jobs, leaves, names)
    faults += [fault for job in jobs for fault in _misfits(job, leaves, shapes, names)]
    if dtypes is not None:
        faults += [fault for job in jobs for fault in _wrong_dtypes(job, leaves, names, dtypes)]
    if faults:
        raise MappingError(faults)
    return Plan(jobs, leaves, names, tied)


def recognised(table: Table, sources: Iterable[str]) -> int:
    """How many of these names the table has a rule for: which spelling a checkpoint is written in."""
    patterns = [_pattern(source) for rule in table.rules for source in rule.sources]
    names = {renamed(table, source) for source in sources}
    return sum(any(pattern.fullmatch(name) for pattern in patterns) for name in names)


def pieces(plan: Plan, read: Read, dtype: Any = None) -> Iterator[Piece]:
    """The finished arrays one by one, in the dtype of their leaf unless `dtype` is given.

    Raises `UserError` when two sources that should be one weight differ.
    """
    for copy, first in plan.tied:
        if not np.array_equal(read(copy), read(first)):
            raise UserError(f"{copy!r} should be a copy of {first!r} but differs from it: this model ties the two")
    for job in plan.jobs:
        for path, array in made_by(job, plan, read).items():
            yield Piece(path, job.layer, np.asarray(array, dtype or plan.targets[path].dtype))


def made_by(job: Job, plan: Plan, read: Read) -> dict[str, np.ndarray]:
    """Target -> array of one job in the file's dtype; often a view of what was read."""
    shapes = [_layer_shape(plan.targets[path].shape, job.layer) for path in job.targets]
    arrays = job.rule.transform.forward([read(plan.names[name]) for name in job.sources], shapes)
    return dict(zip(job.targets, arrays, strict=True))


def import_params(plan: Plan, read: Read, dtype: Any = None) -> dict[str, Any]:
    """The filled tree as nested dicts of NumPy arrays."""
    leaves: dict[str, np.ndarray] = {}
    for path, layer, array in pieces(plan, read, dtype):
        if layer is None:
            leaves[path] = np.array(array, order="C")  # a copy: the array may lie on the file's memory map
        else:
            leaves.setdefault(path, np.empty(plan.targets[path].shape, array.dtype))[layer] = array
    return nested(leaves)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def export_shapes(table: Table, params: Any) -> dict[str, Shape]:
    """Name -> shape of all that `export_params` gives, in its order; `params` may be abstract."""
    leaves = flatten_by_path(params)
    written: dict[str, Shape] = {}
    for job in _writers(table, leaves):
        shapes = [_layer_shape(leaves[path].shape, job.layer) for path in job.targets]
        written |= dict(zip(job.sources, job.rule.transform.source_shapes(shapes), strict=True))
    return written


def export_params(table: Table, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays under the names of the table, layer by layer; raises `MappingError` for leaves without a rule."""
    leaves = flatten_by_path(params)
    for job in _writers(table, leaves):
        arrays = [np.asarray(leaves[path] if job.layer is None else leaves[path][job.layer]) for path in job.targets]
        yield from zip(job.sources, job.rule.transform.backward(arrays), strict=True)


def _writers(table: Table, leaves: Mapping[str, Any]) -> list[Job]:
    jobs = list(_once(job for rule in table.rules for job in _expand(rule, leaves)))
    covered = {path for job in jobs for path in job.targets}
    left = [path for path in leaves if path not in covered]
    if left:
        raise MappingError(f"nothing in the table writes {path!r}" for path in left)
    return sorted(jobs, key=lambda job: -1 if job.layer is None else job.layer)


def renamed(table: Table, name: str) -> str:
    """The table's spelling of a source name."""
    for pattern, replacement in table.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _canonical_names(table: Table, sources: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The table's name -> the file's name, and a fault for each two that fall together."""
    names: dict[str, str] = {}
    faults = []
    for source in sources:
        name = renamed(table, source)
        if name in names:
            faults.append(f"sources {names[name]!r} and {source!r} are both {name!r}")
        names[name] = source
    return names, faults


def _choose(table: Table, leaves: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Job]:
    """Every target entry once: by the first rule whose sources are all there, else by the one that comes nearest."""
    jobs = [job for rule in table.rules for job in _expand(rule, leaves)]
    # sorting is stable: of equally complete jobs the earlier rule comes first
    return _once(sorted(jobs, key=lambda job: -sum(name in names for name in job.sources) / len(job.sources)))


def _once(jobs: Iterable[Job]) -> Iterator[Job]:
    """The jobs that write nothing an earlier one has written."""
    done: set[tuple[str, int | None]] = set()
    for job in jobs:
        entries = {(path, job.layer) for path in job.targets}
        if not entries & done:
            done |= entries
            yield job


def _expand(rule: Rule, leaves: Mapping[str, Any]) -> Iterator[Job]:
    """The jobs of a rule in this tree, none when the tree has no such leaves."""
    if LAYER in rule.targets[0]:
        for layer in sorted(int(match[1]) for match in map(_pattern(rule.targets[0]).fullmatch, leaves) if match):
            yield Job(rule, _fill(rule.sources, layer), _fill(rule.targets, layer), None)
    elif not all(path in leaves for path in rule.targets):
        return
    elif LAYER in rule.sources[0]:
        for layer in range(leaves[rule.targets[0]].shape[0]):
            yield Job(rule, _fill(rule.sources, layer), rule.targets, layer)
    else:
        yield Job(rule, rule.sources, rule.targets, None)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(re.escape(LAYER), r"(\d+)"))


def _fill(templates: tuple[str, ...], layer: int) -> tuple[str, ...]:
    return tuple(template.replace(LAYER, str(layer)) for template in templates)


def _layer_shape(shape: Shape, layer: int | None) -> Shape:
    return tuple(shape) if layer is None else tuple(shape[1:])


def _unread(table: Table, jobs: Iterable[Job], names: Mapping[str, str]) -> list[str]:
    """Sources that no job reads and that nothing excuses."""
    read = {name for job in jobs for name in job.sources} | set(table.tied)
    excused = [re.compile(pattern) for pattern in table.ignored]
    excused += [_pattern(source) for rule in table.rules if rule.optional for source in rule.sources]
    wanted = [name for name in read if name not in names]
    unread = [n for n in names if n not in read and not any(pattern.fullmatch(n) for pattern in excused)]
    hints = (nearest(name, wanted) if index < HINTS else "" for index, name in enumerate(unread))
    return [f"source {names[name]!r} has no rule{hint}" for name, hint in zip(unread, hints, strict=True)]


def _unfilled(jobs: Iterable[Job], leaves: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Targets without a job, and sources that jobs miss."""
    filled = {path for job in jobs for path in job.targets}
    faults = [f"target {path!r} has no rule" for path in leaves if path not in filled]
    for job in jobs:
        missing = [name for name in job.sources if name not in names]
        if missing:
            target = ", ".join(job.targets) + ("" if job.layer is None else f", layer {job.layer}")
            faults.append(f"target {target!r} is left unfilled: no source {', '.join(missing)!r}")
    return faults


def _misfits(
    job: Job, leaves: Mapping[str, Any], shapes: Mapping[str, Shape], names: Mapping[str, str]
) -> Iterator[str]:
    targets = [_layer_shape(leaves[path].shape, job.layer) for path in job.targets]
    for name, wanted in zip(job.sources, job.rule.transform.source_shapes(targets), strict=True):
        if name in shapes and shapes[name] != tuple(wanted):
            yield f"source {names[name]!r} has shape {list(shapes[name])}, {job.targets[0]!r} needs {list(wanted)}"


def _wrong_dtypes(
    job: Job, leaves: Mapping[str, Any], names: Mapping[str, str], dtypes: Mapping[str, str]
) -> Iterator[str]:
    wanted = np.dtype(leaves[job.targets[0]].dtype)
    for name in job.sources:
        dtype = dtypes[names[name]] if name in names else None
        if dtype is not None and ("float" in dtype) != ("float" in wanted.name):
            yield f"source {names[name]!r} holds {dtype}, {job.targets[0]!r} needs {wanted.name}"
