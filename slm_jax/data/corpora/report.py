"""What became of a corpus, and the names of the files that tell of it."""

import dataclasses
from typing import Any

from slm_jax.data.corpora import recordings
from slm_jax.data.corpora.settings import (
    CorpusConfig,
    FolderConfig,
    ManifestConfig,
    SeveralCorporaConfig,
    TaskCorpusConfig,
    TFDSConfig,
)
from slm_jax.data.corpora.splits import SPLITS

REPORT, INDEX, REJECTED, WARNED = "report.json", "index.json", "rejected.jsonl", "warnings.jsonl"
REASONS_OF_TASKS = {
    "no_task": "none of the tasks has an answer for the item",
    "damaged": "the item cannot be read, or its words cannot be spoken",
}
"""Why an item is no example of a task."""


@dataclasses.dataclass
class Report:
    """What became of a corpus: items and hours per split, rejections and warnings per reason, the seconds it took.

    `unread`: files of kinds of sound that cannot be read, by suffix. `moved`: items of a small corpus that went to a
    split that would have been empty.
    """

    corpus: str
    folder: str
    accepted: dict[str, int]
    hours: dict[str, float]
    rejected: dict[str, int]
    warnings: dict[str, int]
    seconds: float
    cached: bool = False
    unread: dict[str, int] = dataclasses.field(default_factory=dict)
    moved: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """A table for people."""
        rows = [("split", "items", "hours")]
        rows += [(split, str(self.accepted[split]), f"{self.hours[split]:.3f}") for split in SPLITS]
        rows.append(("all", str(sum(self.accepted.values())), f"{sum(self.hours.values()):.3f}"))
        lines = [f"{name:<8}{items:>8}{hours:>10}" for name, items, hours in rows]
        reasons = recordings.REASONS | REASONS_OF_TASKS
        for title, counts, words in (
            ("rejected", self.rejected, reasons),
            ("warnings", self.warnings, recordings.WARNINGS),
        ):
            lines.append(f"{title}: {sum(counts.values())}")
            lines += [f"  {count:>6}  {reason}: {words[reason]}" for reason, count in sorted(counts.items())]
        if self.unread:
            lines.append("not read: " + ", ".join(f"{count} x {suffix}" for suffix, count in self.unread.items()))
        if self.moved:
            lines.append(f"moved: {self.moved} of these few items, to splits that would have been empty")
        empty = [split for split in SPLITS if not self.accepted[split]]
        if empty:
            lines.append(f"nothing in {' and '.join(empty)}: what needs such speech is left out")
        where = "was there already" if self.cached else f"took {self.seconds:.1f} s"
        return "\n".join([f"corpus {self.corpus}", *lines, f"in {self.folder} ({where})"])


def describe(config: CorpusConfig) -> str:
    """A short name for messages."""
    if isinstance(config, SeveralCorporaConfig):
        return " + ".join(describe(part.corpus) for part in config.corpora)
    if isinstance(config, ManifestConfig | FolderConfig):
        return f"{type(config).__name__.removesuffix('Config').lower()}:{config.path}"
    if isinstance(config, TaskCorpusConfig):
        return f"tasks:{config.path}"
    return f"tfds:{config.name}" if isinstance(config, TFDSConfig) else "world"


def joint(reports: list[Report]) -> Report:
    """One report for several corpora."""

    def total(counts: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: sum(one.get(name, 0) for one in counts) for name in sorted(set().union(*counts))}

    return Report(
        corpus=" + ".join(report.corpus for report in reports),
        folder=", ".join(report.folder for report in reports),
        accepted=total([report.accepted for report in reports]),
        hours=total([report.hours for report in reports]),
        rejected=total([report.rejected for report in reports]),
        warnings=total([report.warnings for report in reports]),
        seconds=sum(report.seconds for report in reports),
        cached=all(report.cached for report in reports),
        unread=total([report.unread for report in reports]),
        moved=sum(report.moved for report in reports),
    )
