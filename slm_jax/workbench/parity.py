"""Ours against PyTorch, place by place: the same weights, the same inputs, with and without padding.

A reference (`interop.references`) gives its weights under their published names; they come in through the family's
table, as those of a downloaded folder would, and both sides run on the same inputs. What passes the same places is
compared: every real step of every row, never the padding. What is particular to a kind of model is its `Comparable`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.trees import flatten_by_path
from slm_jax.interop.engine import import_params, nested, resolve
from slm_jax.interop.families import family_named
from slm_jax.interop.model import open_model
from slm_jax.interop.reference import Arrays, Reference, require_torch
from slm_jax.interop.references import builders_named, reference_from_folder
from slm_jax.workbench.activations import Activation, Run, in_dtype, runner
from slm_jax.workbench.comparable import Case, inputs_alone
from slm_jax.workbench.comparables import comparable_of

TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
"""Times max(1, max|reference|)."""
SPREAD = (0.1, 10.0)
"""What the standard deviation of every activation under drawn weights must lie between."""
BY_HAND = ("transformer_ulm", "hifigan", "unit_hifigan")
"""Families whose PyTorch side is written out in `interop.reference_hifigan` and `interop.reference_pgslm`."""
CONTROL = "negative control"
MOVED_BY = 1e-2


@dataclass(frozen=True)
class Row:
    """One place compared.

    `max_abs`: the largest difference; `max_rel`: the largest |difference| / max(|reference|, `ref_std`), so that
    values near zero do not count; both None when the shapes differ or something is not finite. `ref_std`: standard
    deviation of the reference (None when that is not finite). `ok`: `max_abs` <= `tolerance`. In the negative control
    `layer` is the first place that differs beyond tolerance (the last place when none does), and `ok` means that the
    moved weight was noticed.
    """

    family: str
    case: str
    layer: str
    max_abs: float | None
    max_rel: float | None
    ref_std: float | None
    tolerance: float
    ok: bool

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """A reference with our config and the weights in our tree."""

    reference: Reference
    config: Any
    params: Any
    dtype: str


@dataclass(frozen=True)
class Comparison:
    """The rows of one case and, by name of the place, the real steps of both sides. `note`: a line about the case."""

    family: str
    case: str
    rows: tuple[Row, ...]
    reference: Arrays
    ours: Arrays
    note: str = ""

    @property
    def first_difference(self) -> Row | None:
        """The first place beyond tolerance: what went wrong lies between it and the place before."""
        return next((row for row in self.rows if not row.ok), None)

    def save(self, folder: Path) -> Path:
        """Write `FAMILY/CASE/reference.npz` and `ours.npz`, arrays by name of the place; returns their folder."""
        target = Path(folder) / self.family / self.case.replace(", ", "_").replace(" ", "_")
        target.mkdir(parents=True, exist_ok=True)
        np.savez(target / "reference.npz", **self.reference)  # type: ignore[arg-type]
        np.savez(target / "ours.npz", **self.ours)  # type: ignore[arg-type]
        return target


def compare_families(names: tuple[str, ...], seed: int, dtype: str) -> Iterator[Comparison]:
    """All cases of all variants of these families (all of them when none is named), drawn from `seed`."""
    require_torch()
    for build in builders_named(names):
        with precision(dtype):  # left before anything is given out: it would hold for the caller's code too
            done = list(compare(subject_of(build(seed, dtype), dtype), seed))
        yield from done


def compare_folder(folder: Path, seed: int, dtype: str) -> Iterator[Comparison]:
    """All cases of the model in a folder as the hub lays it out. Raises `UserError` when PyTorch cannot load it."""
    require_torch()
    require(Path(folder).is_dir(), "--model", str(folder), "must be a folder with config.json and weights")
    opened = open_model(folder)
    loads = opened.spelling == "transformers" or opened.family.name in BY_HAND
    require(loads, "--model", str(folder), f"has {opened.spelling} names, which transformers cannot load: convert it")
    reference = reference_from_folder(folder, opened.family.name, dtype)
    with precision(dtype):
        params = import_params(opened.plan, opened.weights.read, np.dtype(dtype))
        done = list(compare(Subject(reference, in_dtype(opened.config, dtype), params, dtype), seed))
    yield from done


def precision(dtype: str) -> Any:
    """JAX with 64 bits, or without."""
    require(dtype in TOLERANCES, "dtype", dtype, f"must be one of {', '.join(TOLERANCES)}")
    return jax.enable_x64(dtype == "float64")


def subject_of(reference: Reference, dtype: str = "float32") -> Subject:
    """The weights of a reference carried over by the table of its family."""
    family = family_named(reference.family)
    config = family.read_config(reference.hub_config)
    shapes = {name: value.shape for name, value in reference.weights.items()}
    plan = resolve(family.table(config, reference.spelling), shapes, family.abstract(config))
    params = import_params(plan, reference.weights.__getitem__, np.dtype(dtype))
    return Subject(reference, in_dtype(config, dtype), params, dtype)


def compare(subject: Subject, seed: int = 0) -> Iterator[Comparison]:
    """Every case of one subject, the negative control last."""
    run = runner(subject.config)
    cases = cases_of(subject, seed)
    plain = compare_case(subject, cases[0], run(subject.params, cases[0].inputs))
    yield plain
    for case in cases[1:]:
        changed = runner(subject.config.replace(**case.changes)) if case.changes else run
        yield compare_case(subject, case, changed(subject.params, case.inputs))
    yield negative_control(subject, plain, cases[0], run)


def compare_case(subject: Subject, case: Case, ours: Mapping[str, Activation]) -> Comparison:
    """What the reference makes of the case beside what we made of it."""
    reference = subject.reference
    if case.alone:
        alone = [reference.run(inputs) for inputs in inputs_alone(case.inputs)]
        theirs = {name: np.concatenate([row[name][0] for row in alone]) for name in alone[0]}
    else:
        theirs = {name: _real_steps(values, ours[name].real) for name, values in reference.run(case.inputs).items()}
    kept = {name: ours[name].kept() for name in theirs}
    name = f"{reference.variant}, {case.name}"
    rows = tuple(judge(reference, name, layer, kept[layer], theirs[layer], subject.dtype) for layer in theirs)
    return Comparison(reference.family, name, rows, theirs, kept)


def judge(reference: Reference, case: str, layer: str, ours: np.ndarray, theirs: np.ndarray, dtype: str) -> Row:
    """One row. Raises `UserError` when drawn weights leave a place too quiet or too loud to mean anything."""
    if not np.isfinite(theirs).all():
        return Row(reference.family, case, layer, None, None, None, TOLERANCES[dtype], False)
    std, largest = float(theirs.std()), float(np.abs(theirs).max())
    drawn_well = not reference.tiny or SPREAD[0] <= std <= SPREAD[1]
    where = f"standard deviation of {reference.family} ({case}) at {layer}"
    require(drawn_well, where, std, f"drawn weights must keep it within {SPREAD}: take another seed")
    tolerance = TOLERANCES[dtype] * max(1.0, largest)
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return Row(reference.family, case, layer, None, None, std, tolerance, False)
    difference = np.abs(np.asarray(ours, np.float64) - theirs)
    relative = difference / np.maximum(np.abs(theirs), max(std, np.finfo(np.float64).tiny))
    most = float(difference.max())
    return Row(reference.family, case, layer, most, float(relative.max()), std, tolerance, most <= tolerance)


def negative_control(subject: Subject, unmoved: Comparison, case: Case, run: Run) -> Comparison:
    """The case again with one of our weights moved: a comparison that does not notice it proves nothing.

    Noticed means that a place which passed before the weight was moved does not pass now.
    """
    params, path = with_one_weight_moved(subject)
    moved = compare_case(subject, case, run(params, case.inputs))
    pairs = zip(moved.rows, unmoved.rows, strict=True)
    noticed = next((row for row, before in pairs if before.ok and not row.ok), None)
    row = moved.rows[-1] if noticed is None else noticed
    name = f"{subject.reference.variant}, {CONTROL}"
    verdict = Row(**{**row.to_json(), "case": name, "ok": noticed is not None})
    note = f"one entry of {path} moved by {MOVED_BY}"
    return Comparison(row.family, name, (verdict,), moved.reference, moved.ours, note)


def with_one_weight_moved(subject: Subject) -> tuple[Any, str]:
    """Our parameters with one entry 0.01 larger, and the path of its leaf."""
    leaves = flatten_by_path(subject.params)
    path = next(path for path in leaves if path.endswith(comparable_of(subject.config).moved))
    leaf = np.array(leaves[path])
    leaf[tuple(size // 2 for size in leaf.shape)] += MOVED_BY
    return nested({**leaves, path: leaf}), path


def cases_of(subject: Subject, seed: int) -> tuple[Case, ...]:
    """The inputs: whole rows first, then padded ones."""
    rng = np.random.default_rng(seed)
    cases = comparable_of(subject.config).cases(subject.config, rng, subject.reference.tiny)
    return tuple(replace(case, inputs=_in_precision(case.inputs, subject.dtype)) for case in cases)


def _in_precision(inputs: Arrays, dtype: str) -> Arrays:
    """Real numbers in `dtype`; the same values in either, since they were drawn in float32."""
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in inputs.items()}


def _real_steps(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """All steps where the two disagree on how many there are, which `judge` then finds not comparable."""
    return values[real] if values.shape[:2] == real.shape else values
