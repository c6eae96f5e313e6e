"""VoiceBench (Chen et al., arXiv 2410.17196): spoken questions, replies that its scripts score as text.

Items: `FOLDER/SUBSET/SPLIT-*.parquet`, as the hub has them, with columns `audio`, `prompt` (the words of the question)
and, by subset, `output`, `reference`, or `key`, `instruction_id_list` and `kwargs`. Predictions: a line of JSON for
each item, all of its columns but the audio and `response`, in `MODEL-SUBSET-SPLIT-MODALITY.jsonl`: what its `main.py`
writes, and its `api_judge.py` and `evaluate.py` read.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from slm_jax.core.errors import UserError, nearest, require
from slm_jax.data.benchmarks.items import BenchmarkItem, require_all
from slm_jax.data.benchmarks.parquet import parquet_rows

MODALITIES = ("audio", "text")


def read_voicebench(
    folder: str | Path, subset: str, split: str = "test", modality: str = "audio", count: int | None = None
) -> list[BenchmarkItem]:
    """The items of a subset, asked by their recordings or (`text`) by their words.

    Raises `UserError` where they are not there, or a row has no single recording with its prompt.
    """
    require(modality in MODALITIES, "modality", modality, f"one of {', '.join(MODALITIES)}")
    place = Path(folder) / subset
    known = [path.name for path in Path(folder).iterdir() if path.is_dir()] if Path(folder).is_dir() else []
    require(place.is_dir(), "subset", subset, f"{folder} has {', '.join(sorted(known))}{nearest(subset, known)}")
    files = sorted(place.glob(f"{split}-*.parquet"))
    found = sorted({path.name.rsplit("-", 3)[0] for path in place.glob("*.parquet")})
    require(bool(files), "split", split, f"{place} has {', '.join(found)}{nearest(split, found)}")
    items: list[BenchmarkItem] = []
    for number, (audio, fields) in enumerate(parquet_rows(files)):
        if number == count:
            break
        if "audio" not in audio or not isinstance(fields.get("prompt"), str):
            raise UserError(f"item {number} of {place}: columns are {sorted([*audio, *fields])}: no audio and prompt")
        clips, words = ((audio["audio"],), "") if modality == "audio" else ((), fields["prompt"])
        items.append(BenchmarkItem(f"{subset}-{split}-{number}", clips, words, fields))
    return items


def write_voicebench(
    folder: str | Path,
    items: Sequence[BenchmarkItem],
    responses: Sequence[str],
    *,
    model: str,
    subset: str,
    split: str = "test",
    modality: str = "audio",
) -> Path:
    """Write the predictions of a model; returns the file."""
    require_all(items, responses)
    path = Path(folder) / f"{model}-{subset}-{split}-{modality}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**item.fields, "response": text}) for item, text in zip(items, responses, strict=True)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
