"""Write down what is said in recordings, with a Whisper model."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from slm_jax.cli.console import Failed, say
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """Each recording is written down, in its own language or in English; long ones are cut where it is quiet."""

    model: Annotated[str, tyro.conf.Positional]
    """A Whisper model: a folder as the hub lays it out, one that `convert` made, or hub:NAME."""
    recordings: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Audio files of any rate and common format."""
    language: str | None = None
    """Code of the language (en, cs, nl ...); by default the likeliest one."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """Translate goes to English."""
    beams: int = 1
    """Sequences that are followed; 1 takes the likeliest token at each step."""
    max_new: int | None = None
    """Tokens of a window of 30 s at most; by default as many as the decoder has room for."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Print and return the words of each recording; one that cannot be read is said, and the others go on."""
    options = parse_options(TranscribeOptions, argv, "transcribe")
    require(len(options.recordings) > 0, "recordings", "none", "name at least one audio file")
    heard, faults = read_all(options.recordings)
    if len(faults) == len(options.recordings):
        raise UserError("; ".join(faults.values()))
    found = written(options, heard)
    rows = [found.get(path) or {"file": str(path), "error": faults[path]} for path in map(Path, options.recordings)]
    for row in rows:
        if "error" in row:
            say(f"error: {row['error']}")
        else:
            print(row["text"] if len(rows) == 1 else f"{row['file']}: {row['text']}")
    result = {"model": options.model, "transcripts": rows}
    if faults:
        raise Failed(result)
    return result


def read_all(paths: tuple[Path, ...]) -> tuple[dict[Path, Any], dict[Path, str]]:
    """Samples at 16 kHz by file, and why the others cannot be used."""
    from slm_jax.audio.files import read_audio

    heard, faults = {}, {}
    for path in paths:
        try:
            heard[path] = read_audio(path, min_s=0.025)
        except UserError as error:
            faults[path] = str(error)
    return heard, faults


def written(options: TranscribeOptions, heard: dict[Path, Any]) -> dict[Path, dict[str, Any]]:
    """What was said in each recording, file by file."""
    from slm_jax.data.progress import counted
    from slm_jax.generation.beam import BeamConfig
    from slm_jax.serving.transcriber import RATE_HZ, Transcription, load_transcriber

    how = Transcription(
        language=options.language, task=options.task, max_new=options.max_new, beam=BeamConfig(beams=options.beams)
    )
    transcriber = load_transcriber(options.model, how)
    found = {}
    total = sum(len(samples) for samples in heard.values()) // RATE_HZ
    with counted(total, "transcribe", unit=" s", show=total > 60) as bar:
        for path, samples in heard.items():
            (one,) = transcriber.transcribe([samples])
            windows = [{"start_s": a, "end_s": b, "text": text} for a, b, text in one.windows]
            found[path] = {
                "file": str(path),
                "text": one.text,
                "language": one.language,
                "seconds": one.seconds,
                "windows": windows,
            }
            bar.update(len(samples) // RATE_HZ)
    return found
