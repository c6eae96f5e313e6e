"""Dynamic-SUPERB (Huang et al., arXiv 2309.09510; phase 2: 2411.05361): recordings with a written instruction, by task.

Items, in either form: `TASK/metadata.json`, file name -> fields (`instruction`, `label`, ...), beside the recordings
NAME.wav, NAME_pair2.wav, NAME_pair3.wav ..., as tools of phase 2 lay them out; or the hub's `TASK/**/SPLIT-*.parquet`
with columns `audio`, `audio2` ..., `file`, `instruction`, `label`. Predictions: `MODEL/TASK.json`, the same object with
`sllm_name` and `sllm_response` in the fields of each file, as inference scripts of phase 2 write them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile

from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Speech
from slm_jax.data.benchmarks.items import BenchmarkItem, clip, require_all
from slm_jax.data.benchmarks.parquet import parquet_rows

METADATA, INSTRUCTION = "metadata.json", "instruction"


def read_dynamic_superb(folder: str | Path, split: str = "test", count: int | None = None) -> list[BenchmarkItem]:
    """The items of one task. Raises `UserError` where they are not there, or one has no instruction or recording."""
    folder = Path(folder)
    files = sorted(folder.rglob(f"{split}-*.parquet"))
    listed = (folder / METADATA).is_file()
    require(listed or bool(files), "task", str(folder), f"has neither {METADATA} nor {split}-*.parquet")
    rows = _listed(folder) if listed else _tabled(folder.name, files)
    return [_item(*row) for row, _ in zip(rows, range(10**9 if count is None else count), strict=False)]


def write_dynamic_superb(
    folder: str | Path, items: Sequence[BenchmarkItem], responses: Sequence[str], *, model: str, task: str
) -> Path:
    """Write the predictions of a model for one task; returns the file."""
    require_all(items, responses)
    told = {
        item.id: {**item.fields, "sllm_name": model, "sllm_response": text}
        for item, text in zip(items, responses, strict=True)
    }
    path = Path(folder) / model / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


def _item(name: str, clips: tuple[Speech, ...], fields: dict[str, Any]) -> BenchmarkItem:
    words = fields.get(INSTRUCTION)
    if not isinstance(words, str) or not words or not clips:
        raise UserError(f"item {name!r}: a recording and {INSTRUCTION!r} are needed; fields are {sorted(fields)}")
    return BenchmarkItem(name, clips, words, fields)


def _listed(folder: Path) -> Iterator[tuple[str, tuple[Speech, ...], dict[str, Any]]]:
    for name, fields in json.loads((folder / METADATA).read_text(encoding="utf-8")).items():
        first = folder / name
        yield name, tuple(_read(path) for path in _pairs(first)), fields


def _pairs(first: Path) -> Iterator[Path]:
    """A recording and those that stand beside it."""
    number, path = 1, first
    while path.is_file() or number == 1:
        yield path
        number += 1
        path = first.with_name(f"{first.stem}_pair{number}{first.suffix}")


def _read(path: Path) -> Speech:
    try:
        return clip(*soundfile.read(path, dtype="float32"))
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"recording {str(path)!r} cannot be read: {error}") from error


def _tabled(task: str, files: list[Path]) -> Iterator[tuple[str, tuple[Speech, ...], dict[str, Any]]]:
    """Rows under the names that the tools of phase 2 give them."""
    seen: set[str] = set()
    for audio, fields in parquet_rows(files):
        stem = Path(str(fields.get("file", fields.get("file1", len(seen))))).stem
        name = f"{task}_{stem}.wav"
        if name in seen:
            raise UserError(f"two items of {task!r} are called {name!r}")
        seen.add(name)
        yield name, tuple(audio[column] for column in sorted(audio, key=lambda one: (len(one), one))), fields
