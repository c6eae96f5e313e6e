"""Time this project beside PyTorch: same weights, same inputs, in turns.

The first runs of both sides are compared and not timed; times are medians over interleaved pairs.
"""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from slm_jax.cli.console import Failed, say, table
from slm_jax.cli.options import parse_options

COLUMNS = ("case", "ours ms", "reference ms", "ratio", "10-90 %", "floor ms", "compile s", "difference", "reference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Time this project beside PyTorch (faiss for k-means). Ratio = reference / ours; above 1 we are faster."""

    cases: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Names of cases; when none is given all but the large ones, which are for an accelerator."""
    pairs: int = 7
    """Interleaved pairs of runs per case."""
    compile: bool = False
    """Let torch.compile compete as well, which takes minutes."""
    quick: bool = False
    """Small shapes, to try the command: the figures say nothing."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation. In bfloat16 the difference of the outputs is shown but not judged."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> list[dict[str, Any]]:
    """Run the cases; print and return their rows. Raises `Failed` with them when the outputs of some case differ."""
    options = parse_options(BenchOptions, argv, "bench")
    from slm_jax.interop.reference import require_torch

    require_torch()
    from slm_jax.data.progress import counted
    from slm_jax.workbench.bench import BenchSettings
    from slm_jax.workbench.bench_cases import chosen, run_case
    from slm_jax.workbench.bench_machine import ceilings, fresh_compilation, machine

    settings = BenchSettings(pairs=options.pairs, compile=options.compile, quick=options.quick, dtype=options.dtype)
    names = chosen(options.cases)
    fresh_compilation()
    about, limits = machine(), ceilings()
    print(heading(about, limits, settings.pairs))
    rows = []
    for name in names:
        with counted(settings.pairs, name, " pairs") as bar:
            row = run_case(name, settings, limits, bar.update)
        say(f"{name}: load {row['load_before']:.1f} before, {verdict(row)}")
        rows.append(row | {"machine": about | limits})
    print(table([cells(row) for row in rows], COLUMNS))
    if any(row["equal"] is False for row in rows):
        raise Failed(rows)
    return rows


def heading(about: dict[str, Any], limits: dict[str, float], pairs: int) -> str:
    """The machine, its load and its limits."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    load = about["load"][0]
    busy = " (it is busy: times on the clock say little)" if load > 0.5 * about["cores"] else ""
    lines = (
        f"{about['processor']}, {about['cores']} cores, load {load:.1f}{busy}; {', '.join(about['devices'])}",
        versions,
        f"at most {limits['gflop_s']:.0f} GFLOP/s and {limits['gbyte_s']:.1f} GB/s here; medians over {pairs} pairs",
    )
    return "\n".join(lines) + "\n"


def verdict(row: dict[str, Any]) -> str:
    """What to say of a case once it is done."""
    if row["equal"] is False:
        return f"NOT TIMED: outputs differ by {row['max_difference']:.3g}, allowed are {row['tolerance']:.3g}"
    shares = f", MFU {100 * row['mfu']:.0f} and {100 * row['reference_mfu']:.0f} %" if "mfu" in row else ""
    return f"{row['ours_ms']:.1f} ms, {row['reference']} {row['reference_ms']:.1f} ms, ratio {row['ratio']:.2f}{shares}"


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    if row["ours_ms"] is None:
        return [row["case"], *["-"] * 6, f"{row['max_difference']:.1e}", verdict(row)]
    times = [f"{row['ours_ms']:.1f}", f"{row['reference_ms']:.1f}", f"{row['ratio']:.2f}"]
    spread = f"{row['ratio_p10']:.2f}-{row['ratio_p90']:.2f}"
    rest = [f"{row['floor_ms']:.1f}", f"{row['compile_s']:.1f}", f"{row['max_difference']:.1e}"]
    return [row["case"], *times, spread, *rest, row["reference"]]
