"""Markdown tables of a run's figures.json, for the README of an experiment.

python experiments/tables.py runs/gslm_world/figures.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with the first column to the left and numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A figure with three decimals, anything else as it is."""
    return f"{value:.3f}" if isinstance(value, float) else "–" if value is None else str(value)


def named_rows(figures: dict[str, dict[str, Any]]) -> str:
    """One row per name."""
    columns = list(next(iter(figures.values())))
    rows = [[name, *(values[column] for column in columns)] for name, values in figures.items()]
    return markdown(["", *(column.replace("_", " ") for column in columns)], rows)


def unit_rows(units: Sequence[dict[str, Any]]) -> str:
    """Features under equal treatments, with the spread over seeds where there are several."""
    header = ["feature", "normalisation", "window", "phone purity", "cluster purity", "PNMI"]
    rows = []
    for one in units:
        figures = []
        for name in ("phone_purity", "cluster_purity", "pnmi"):
            seeds = [seed[name] for seed in one["seeds"]]
            spread = f" ({min(seeds):.3f}–{max(seeds):.3f})" if len(seeds) > 1 else ""
            figures.append(f"{one[name]:.3f}{spread}")
        rows.append([one["feature"], one["normalise"], one["smooth"], *figures])
    return markdown(header, rows)


def main(path: str) -> None:
    """Print every table."""
    figures = json.loads(Path(path).read_text(encoding="utf-8"))
    if figures["units"]:
        print(f"Units against phones, K = {figures['units'][0]['clusters']}, {figures['units'][0]['frames']} frames\n")
        print(unit_rows(figures["units"]) + "\n")
    language_model = figures["language_model"]
    print("Nats per unit\n\n" + markdown(list(language_model), [list(language_model.values())]) + "\n")
    for name in ("resynthesis", "continuations"):
        print(f"{name.capitalize()}\n\n{named_rows(figures[name])}\n")
    if "phone_classifier_accuracy" in figures:
        print(f"Phone classifier: {figures['phone_classifier_accuracy']:.3f} of held-out frames right")


if __name__ == "__main__":
    main(sys.argv[1])
