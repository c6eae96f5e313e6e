"""Tables of the hub: Parquet files whose audio columns hold `{"bytes": a file, "path": its name}`."""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from slm_jax.core.errors import UserError, require
from slm_jax.core.messages import Speech
from slm_jax.data.benchmarks.items import clip


def parquet_rows(files: list[Path]) -> Iterator[tuple[dict[str, Speech], dict[str, Any]]]:
    """(audio columns at their own rates, all other columns) of each row, in the order of the files.

    Raises `UserError` for a file that is no Parquet, for audio that cannot be read, and without pyarrow.
    """
    require(importlib.util.find_spec("pyarrow") is not None, "files", str(files[0]), "pyarrow reads them: pip install")
    import pyarrow
    import pyarrow.parquet

    for path in files:
        try:
            table = pyarrow.parquet.ParquetFile(path)
            for batch in table.iter_batches(batch_size=16):
                for number, row in enumerate(batch.to_pylist()):
                    yield _parted(row, f"{path.name} row {number}")
        except pyarrow.ArrowException as error:
            raise UserError(f"file {str(path)!r} cannot be read as Parquet: {error}") from error


def _parted(row: dict[str, Any], name: str) -> tuple[dict[str, Speech], dict[str, Any]]:
    audio = {column: value for column, value in row.items() if is_audio(value)}
    return (
        {column: _decoded(value["bytes"], f"{name}, {column}") for column, value in audio.items()},
        {column: value for column, value in row.items() if column not in audio},
    )


def is_audio(value: Any) -> bool:
    """Is a value of a row a recording?"""
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _decoded(data: bytes, name: str) -> Speech:
    try:
        return clip(*soundfile.read(io.BytesIO(data), dtype="float32"))
    except soundfile.LibsndfileError as error:
        raise UserError(f"{name} cannot be read as audio: {error}") from error
