"""Ours against PyTorch, place by place: the same weights, the same inputs, with and without padding.

A reference (`interop.references`) gives its weights under their published names; they come in through the family's
table, as those of a downloaded folder would, and both sides run on the same inputs. What passes the same places is
compared: every real step of every row, never the padding.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.trees import flatten_by_path
from slm_jax.decoders.unit_vocoder import UnitVocoderConfig
from slm_jax.interop.engine import import_params, nested, resolve
from slm_jax.interop.families import family_named
from slm_jax.interop.model import open_model
from slm_jax.interop.reference import Arrays, Reference, require_torch
from slm_jax.interop.references import builders_named, reference_from_folder
from slm_jax.workbench.activations import Activation, Run, in_dtype, runner

TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
"""Times max(1, max|reference|)."""
SPREAD = (0.1, 10.0)
"""What the standard deviation of every activation under drawn weights must lie between."""
BY_HAND = ("hifigan", "unit_hifigan")
"""Families whose PyTorch side is written out in `interop.reference_hifigan`."""
CONTROL = "negative control"
MOVED_BY = 1e-2
MOVED = {"decoder": "mlp_norm/scale", "encoder": "mlp/down/bias", "vocoder": "up_0/bias"}
"""End of the path of the weight that the negative control moves, in the middle layer."""


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
class Case:
    """One run of both sides. `alone`: the reference reads each row by itself, cut to its real steps, which is the
    truth about a padded row. `like_reference`: our encoder takes its group norm over the padding as well."""

    name: str
    inputs: Arrays
    alone: bool = False
    like_reference: bool = False


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
        padded = runner(subject.config.replace(reference_padding=True)) if case.like_reference else run
        yield compare_case(subject, case, padded(subject.params, case.inputs))
    yield negative_control(subject, plain, cases[0], run)


def compare_case(subject: Subject, case: Case, ours: Mapping[str, Activation]) -> Comparison:
    """What the reference makes of the case beside what we made of it."""
    reference = subject.reference
    if case.alone:
        alone = [reference.run(inputs) for inputs in rows_alone(case.inputs)]
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
    path = next(path for path in leaves if path.endswith(MOVED[subject.reference.kind]))
    leaf = np.array(leaves[path])
    leaf[tuple(size // 2 for size in leaf.shape)] += MOVED_BY
    return nested({**leaves, path: leaf}), path


def rows_alone(inputs: Arrays) -> Iterator[dict[str, np.ndarray | None]]:
    """Each row by itself, without its padding."""
    for row, real in enumerate(inputs["mask"]):
        yield {name: _cut(value[row : row + 1], real) for name, value in inputs.items()} | {"mask": None}


def cases_of(subject: Subject, seed: int) -> tuple[Case, ...]:
    """The inputs: whole rows first, then padded ones."""
    rng = np.random.default_rng(seed)
    make = {"decoder": _decoder_cases, "encoder": _encoder_cases, "vocoder": _vocoder_cases}
    cases = make[subject.reference.kind](subject, rng)
    return tuple(replace(case, inputs=_in_precision(case.inputs, subject.dtype)) for case in cases)


def _decoder_cases(subject: Subject, rng: np.random.Generator) -> Iterable[Case]:
    config = subject.config
    steps = min(17, config.max_positions or 17)
    lengths = np.array([steps, steps // 2 + 1, 2])[:, None]
    ids, index = rng.integers(0, config.vocabulary, (3, steps)), np.arange(steps)
    right, left = index < lengths, index >= steps - lengths
    yield Case("plain", {"ids": ids, "mask": np.ones_like(right)})
    yield Case("right-padded", {"ids": ids, "mask": right})
    yield Case("left-padded", {"ids": ids, "mask": left})
    yield Case("batch against utterance", {"ids": ids, "mask": right}, alone=True)


def _encoder_cases(subject: Subject, rng: np.random.Generator) -> Iterable[Case]:
    """16,000, 16,080 and 160,000 samples are 49, 50 and 499 frames in the published shapes."""
    frames = subject.config.frame_count
    one = _speech(rng, [16_080])
    yield Case(f"plain, {frames(16_080)} frames", one)
    lengths = [160_000, 16_080, 16_000]
    counts = ", ".join(str(frames(length)) for length in lengths)
    yield Case(f"batch against utterance, {counts} frames", _speech(rng, lengths), alone=True)
    yield Case("reference_padding", _speech(rng, [16_080, 9_777]), like_reference=True)


def _speech(rng: np.random.Generator, lengths: list[int]) -> Arrays:
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    samples = rng.standard_normal(mask.shape).astype(np.float32)
    return {"samples": np.where(mask, samples, 0.0).astype(np.float32), "mask": mask}


def _vocoder_cases(subject: Subject, rng: np.random.Generator) -> Iterable[Case]:
    steps, lengths = 23, np.array([[23], [9], [1]])
    mask = np.arange(steps) < lengths
    inputs = _frames(subject, rng, mask.shape)
    yield Case("plain", {name: value[:1] for name, value in inputs.items()} | {"mask": np.ones((1, steps), bool)}, True)
    yield Case("batch against utterance", {**inputs, "mask": mask}, alone=True)


def _frames(subject: Subject, rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random mels (those of a real model have the mean and spread of log magnitudes), or units with what they need."""
    config = subject.config
    if isinstance(config, UnitVocoderConfig):
        inputs: Arrays = {
            "units": rng.integers(1, config.units, shape),
            "speaker": rng.integers(0, config.speakers, shape[:1]),
        }
        if config.languages:
            inputs["language"] = rng.integers(0, config.languages, shape[:1])
        if config.pitch:
            inputs["f0_hz"] = rng.uniform(80.0, 300.0, shape).astype(np.float32)
            inputs["voiced"] = rng.random(shape) < 0.6
        return inputs
    centre, spread = (0.0, 1.0) if subject.reference.tiny else (-5.0, 2.0)
    return {"features": (centre + spread * rng.standard_normal((*shape, config.mels))).astype(np.float32)}


def _in_precision(inputs: Arrays, dtype: str) -> Arrays:
    """Real numbers in `dtype`; the same values in either, since they were drawn in float32."""
    return {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in inputs.items()}


def _real_steps(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """All steps where the two disagree on how many there are, which `judge` then finds not comparable."""
    return values[real] if values.shape[:2] == real.shape else values


def _cut(value: np.ndarray, real: np.ndarray) -> np.ndarray:
    """The real steps of a row; what has no steps (a speaker) stays as it is."""
    return value[:, real] if value.ndim > 1 else value
