"""Compare our models with PyTorch's layer by layer: same weights, same inputs, with and without padding."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from slm_jax.cli.console import Failed, table
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError

if TYPE_CHECKING:
    from slm_jax.workbench.parity import Comparison, Row

HEADER = ("layer", "max abs", "max rel", "ref std", "tolerance", "verdict")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """Equal to PyTorch? Random weights from a seed for whole families, or the real weights of one folder.

    A layer passes when its largest difference is at most 1e-4 * max(1, max|reference|), or 1e-9 of that in float64.
    "max rel" is the largest |difference| / max(|reference|, ref std). Only real steps are compared, never padding. In
    the case "negative control" one of our weights is 0.01 larger, and it passes when that is noticed. Exit code 1 when
    anything fails.
    """

    families: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which families; all of them when none is named."""
    model: Path | None = None
    """A folder as the hub lays it out (config.json and weights), compared instead."""
    dtype: Literal["float32", "float64"] = "float32"
    """What both sides compute in: a difference that stays in float64 is a mistake, one that goes was rounding."""
    seed: int = 0
    """Draws the weights and the inputs."""
    save: Path | None = None
    """A folder for the activations of both sides, by layer name: FAMILY/CASE/reference.npz and ours.npz."""
    json: bool = False
    """Print one JSON value instead of text: a list with one entry per layer."""


def main(argv: list[str]) -> list[dict[str, Any]]:
    """Compare, print case by case and return the rows; raises `Failed` with them when a row is not ok."""
    options = parse_options(ParityOptions, argv, "parity")
    rows: list[Row] = []
    for comparison in _comparisons(options):
        print(report(comparison), flush=True)
        rows += comparison.rows
        if options.save is not None:
            comparison.save(options.save)
    failed = [row for row in rows if not row.ok]
    print(f"{len(rows)} comparisons, {f'{len(failed)} FAILED' if failed else 'all passed'}")
    result = [row.to_json() for row in rows]
    if failed:
        raise Failed(result)
    return result


def report(comparison: "Comparison") -> str:
    """One case as a table, with the place to look at when it failed."""
    title = f"{comparison.family} {comparison.case}"
    lines = [f"{title} ({comparison.note})" if comparison.note else title]
    lines.append(table([_cells(row) for row in comparison.rows], HEADER))
    first = comparison.first_difference
    if first is not None and comparison.note:
        lines.append(
            "the moved weight was not noticed: the tolerance is too wide here, --dtype float64 has a narrower one"
        )
    elif first is not None:
        at = comparison.rows.index(first)
        before = f"{comparison.rows[at - 1].layer} before it agrees" if at else "nothing before it was compared"
        lines.append(f"first difference: {first.layer}; {before}")
    return "\n".join(lines) + "\n"


def _cells(row: "Row") -> tuple[str, ...]:
    """Numbers in one notation, so that magnitudes can be read down a column."""
    numbers = (row.max_abs, row.max_rel, row.ref_std, row.tolerance)
    return (row.layer, *("not comparable" if n is None else f"{n:.2e}" for n in numbers), "ok" if row.ok else "FAILED")


def _comparisons(options: ParityOptions) -> Iterator["Comparison"]:
    from slm_jax.workbench.parity import compare_families, compare_folder

    if options.model is None:
        return compare_families(options.families, options.seed, options.dtype)
    if options.families:
        raise UserError(f"--model is {str(options.model)!r}: its config.json tells the family, name none")
    return compare_folder(options.model, options.seed, options.dtype)
