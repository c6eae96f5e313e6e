"""The least work that can be done in shards: rows that count."""

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from slm_jax.core.errors import UserError
from slm_jax.data.shards.work import Left, ShardWork


class CountingWork(ShardWork):
    """Item i of three tables becomes the numbers below i; the fifth is left out, and `stops` cannot be done."""

    FREE = ("place",)

    reads: int = 1
    stops: int = -1
    place: str = "here"

    reasons: ClassVar = {"odd": "it is odd"}

    def inputs(self):
        return {"read": self.reads}

    def counts(self):
        return {"train": 18, "dev": 0, "test": 3}

    def rows(self, table, places):
        for i in places:
            if i == self.stops:
                raise UserError(f"cannot do item {i}")
            if i == 5:
                yield Left(f"{table}-{i}", "odd", "it is five")
            else:
                yield {"id": f"{table}-{i}", "values": np.arange(i), "half": i / 2}

    def extras(self):
        return {"extra.json": {"more": 1}}


def bytes_of(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
