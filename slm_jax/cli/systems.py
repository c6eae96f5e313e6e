"""Every named system: kind, sizes, parameters, what it reads and writes, its stages, plans and kept figures."""

import dataclasses
from pathlib import Path
from typing import Any

from slm_jax.cli.console import say, table
from slm_jax.cli.options import parse_options

BEGIN, END = "<!-- systems: written by `make docs` -->", "<!-- end of systems -->"
HEADER = ("name", "kind", "reads", "writes", "streams", "size", "parameters of its stages")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemsOptions:
    """List the systems that `train NAME:SIZE` knows."""

    into: Path | None = None
    """A Markdown file whose table of systems, between two marks, is written anew."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> list[dict[str, Any]]:
    """Print and return all systems."""
    from slm_jax.systems.catalogue import entries

    options = parse_options(SystemsOptions, argv, "systems")
    found = list(entries())
    if options.into is not None:
        options.into.write_text(with_table(options.into.read_text(encoding="utf-8"), found), encoding="utf-8")
        say(f"wrote the table of systems into {options.into}")
        return found
    print(table([row for entry in found for row in rows(entry)], HEADER))
    print("\n\n".join(["", *map(details, found), "Train one with `train NAME:SIZE --workdir W`."]))
    return found


def details(entry: dict[str, Any]) -> str:
    """Stages, plans and kept figures of one system."""
    stages = dict.fromkeys(stage for about in entry["sizes"].values() for stage in about["stages"])
    lines = [f"{entry['system']} ({entry['paper']})", f"  stages  {', '.join(stages)}"]
    plans = [named(plan) for plan in entry["plans"]]
    kept = [f"{one['words']}: {one['value']:.3g}" for one in entry["figures"]]
    return "\n".join([*lines, f"  plans   {', '.join(plans) or 'none'}", f"  kept    {'; '.join(kept) or 'none'}"])


def rows(entry: dict[str, Any]) -> list[list[str]]:
    """One row for every size; what all sizes share stands in the first."""
    shared = [entry["name"], entry["kind"], "+".join(entry["reads"]), "+".join(entry["writes"]), yes(entry["streams"])]
    made: list[list[str]] = []
    for size, about in entry["sizes"].items():
        counts = ", ".join(f"{name} {counted(about, name, '{} ({} trained)')}" for name in about["parameters"])
        made.append([*(shared if not made else [""] * len(shared)), size, counts])
    return made


def with_table(text: str, found: list[dict[str, Any]]) -> str:
    """`text` with a fresh table between the marks; raises `UserError` where a mark is missing."""
    from slm_jax.core.errors import require

    for mark in (BEGIN, END):
        require(text.count(mark) == 1, "mark", mark, f"must stand in the file once, it does {text.count(mark)} times")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{markdown(found)}\n{END}{rest.partition(END)[2]}"


def markdown(found: list[dict[str, Any]]) -> str:
    """The table for a README: a row for every system."""
    from slm_jax.systems.card import KINDS

    lines = [
        "| system | kind | reads → writes | streams | sizes (parameters) | plans | figures kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in found:
        sizes = ", ".join(f"{size} ({counted(about, entry['counted'])})" for size, about in entry["sizes"].items())
        plans = ", ".join(f"[{named(plan)}]({plan['file']})" for plan in entry["plans"])
        kept = "; ".join(f"{one['words']}: {one['value']:.3g}" for one in entry["figures"])
        what = f"{'+'.join(entry['reads'])} → {'+'.join(entry['writes'])}"
        title = f"**{entry['system']}** `{entry['name']}`, {entry['paper']}"
        cells = (title, KINDS[entry["kind"]], what, yes(entry["streams"]), sizes, plans or "–", kept or "–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def named(plan: dict[str, Any]) -> str:
    """`twist_7b lm v5e:16x16`."""
    return f"{plan['run']} {plan['stage']} {plan['topology']}"


def counted(about: dict[str, Any], stage: str, both: str = "{}, {} trained") -> str:
    """`6.48 B`, or `13.7 B, 33.3 M trained` where a stage trains some of its parameters only."""
    every, trained = short(about["parameters"][stage]), short(about["trained"][stage])
    return every if trained == every else both.format(every, trained)


def short(count: int) -> str:
    """`6.48 B`, `2.1 M`."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def yes(value: bool) -> str:
    """For a table."""
    return "yes" if value else "no"
