"""What became of every item of a work in shards."""

import dataclasses
from collections.abc import Mapping
from typing import Any

SHOWN = 5


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """Rows and shards by table, items that were left out by reason, and the first of them.

    `words`: what the reasons mean. `made`, `kept`: shards that this call made, and that were there. `seconds`: how
    long it took; neither is part of what lies in the folder.
    """

    work: str
    folder: str
    rows: dict[str, int]
    shards: dict[str, int]
    left: dict[str, int]
    words: Mapping[str, str]
    first: tuple[tuple[str, str, str], ...] = ()
    made: int = 0
    kept: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"words": {name: self.words.get(name, "") for name in self.left}}

    def to_text(self) -> str:
        """A table for people."""
        lines = [f"{'table':<8}{'rows':>10}{'shards':>8}"]
        lines += [f"{name:<8}{rows:>10}{self.shards[name]:>8}" for name, rows in self.rows.items()]
        lines.append(f"left out: {sum(self.left.values())}")
        lines += [f"  {count:>6}  {reason}: {self.words.get(reason, '')}" for reason, count in self.left.items()]
        lines += [f"    {item}: {detail}" for item, _, detail in self.first[:SHOWN]]
        lines.append(f"{self.made} shards made, {self.kept} were there ({self.seconds:.1f} s), in {self.folder}")
        return "\n".join([self.work, *lines])
