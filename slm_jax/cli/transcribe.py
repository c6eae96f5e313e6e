"""Write down what is said in recordings, with a Whisper model."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from slm_jax.cli.console import Failed, say
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require

if TYPE_CHECKING:
    from slm_jax.generation.whisper_words import Transcript
    from slm_jax.serving.transcriber import Transcriber

SHORTEST_S = 0.025
"""One frame of a spectrum: there is nothing to hear in less."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """Each recording is written down, in its own language or in English; long ones are cut where it is quiet.

    Exit code 1 when some of them could not be read, 2 when none could.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A Whisper model: a folder as the hub lays it out, one that `convert` made, or hub:NAME."""
    recordings: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files of any rate and common format."""
    language: str | None = None
    """Code of the language (en, cs, nl ...); by default the likeliest one of each recording."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """Translate goes to English."""
    beams: int = 1
    """Sequences that are followed; 1 takes the likeliest token at each step."""
    max_new: int | None = None
    """Tokens of a window of 30 s at most; by default as many as the decoder has room for."""
    rows: int = 8
    """Files that are read together, and windows that are: more are quicker on an accelerator, and take more memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and the computation."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Print and return the words of each recording; one that cannot be read is said, and the others go on."""
    from slm_jax.data.progress import counted

    options = parse_options(TranscribeOptions, argv, "transcribe")
    count = len(options.recordings)
    require(count > 0, "recordings", "none", "name at least one audio file")
    require(options.rows >= 1, "--rows", options.rows, "must be at least 1")
    transcriber, rows = prepared(options), []
    with counted(count, "transcribe", unit=" files", show=count > options.rows) as bar:
        for row in written(transcriber, options.recordings, options.rows):
            tell(row, count > 1)
            rows.append(row)
            bar.update(1)
    faulty = [row for row in rows if "error" in row]
    if len(faulty) == count:
        raise UserError(faulty[0]["error"] if count == 1 else f"none of the {count} recordings can be used")
    result = {"model": options.model, "transcripts": rows}
    if faulty:
        raise Failed(result)
    return result


def prepared(options: TranscribeOptions) -> "Transcriber":
    """The model, told how to go about it."""
    from slm_jax.generation.beam import BeamConfig
    from slm_jax.serving.transcriber import Transcription, load_transcriber

    how = Transcription(
        language=options.language,
        task=options.task,
        max_new=options.max_new,
        rows=options.rows,
        beam=BeamConfig(beams=options.beams),
    )
    return load_transcriber(options.model, how, options.dtype)


def written(transcriber: "Transcriber", paths: tuple[Path, ...], together: int) -> Iterator[dict[str, Any]]:
    """What was said in each recording, or why it cannot be used, in their order; so many files are in memory."""
    for start in range(0, len(paths), together):
        some = paths[start : start + together]
        heard, faults = read_all(some)
        said = dict(zip(heard, transcriber.transcribe(list(heard.values())), strict=True))
        for path in some:
            yield {"file": str(path), "error": faults[path]} if path in faults else as_json(path, said[path])


def read_all(paths: tuple[Path, ...]) -> tuple[dict[Path, Any], dict[Path, str]]:
    """Samples at 16 kHz by file, and why the others cannot be used."""
    from slm_jax.audio.files import read_audio

    heard, faults = {}, {}
    for path in paths:
        try:
            heard[path] = read_audio(path, min_s=SHORTEST_S)
        except UserError as error:
            faults[path] = str(error)
    return heard, faults


def as_json(path: Path, said: "Transcript") -> dict[str, Any]:
    """A recording's words, and those of its windows with their times in seconds."""
    windows = [{"start_s": start, "end_s": end, "text": text} for start, end, text in said.windows]
    row = {"file": str(path), "text": said.text, "language": said.language, "seconds": said.seconds}
    return row | {"windows": windows}


def tell(row: dict[str, Any], several: bool) -> None:
    """Print a recording's words; say why there are none when it is not the only one."""
    if "text" in row:
        print(f"{row['file']}: {row['text']}" if several else row["text"], flush=True)
    elif several:
        say(f"error: {row['error']}")
