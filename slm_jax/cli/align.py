"""Find when the words of a transcribed corpus are said, with a CTC stage of a run."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from slm_jax.cli.console import say
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require

if TYPE_CHECKING:
    from slm_jax.evaluation.ctc import CTCReader

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignOptions:
    """A manifest with the times of its words (`words`, seconds), as stages over text and speech read them.

    Lines whose words cannot be found keep what they have, and are listed with the reason.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder with a finished stage of CTC over characters."""
    manifest: Annotated[Path, tyro.conf.Positional]
    """JSON lines with `audio_filepath` and `text`, perhaps `offset` and `duration`."""
    out: Annotated[Path, tyro.conf.Positional]
    """Where the manifest with times goes; it takes its place when all is done."""
    stage: str | None = None
    """The stage; by default the last one that trained CTC."""
    rows: int = 8
    """Recordings that are read together."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Write the manifest; say how many lines have times and why the others have none."""
    from slm_jax.core.paths import as_path, write_whole
    from slm_jax.data.progress import counted
    from slm_jax.training.run_reader import run_reader

    options = parse_options(AlignOptions, argv, "align")
    require(options.rows >= 1, "--rows", options.rows, "must be at least 1")
    reader, lines = run_reader(options.run, options.stage, options.rows), lines_of(options.manifest)
    written, faults = list[str](), list[dict[str, Any]]()
    with counted(len(lines), "align", unit=" lines") as bar:
        for number, (line, fault) in enumerate(aligned(reader, lines, options), start=1):
            written.append(json.dumps(moved(line, options), ensure_ascii=False) + "\n")
            faults += [] if fault is None else [{"line": number, "error": fault}]
            bar.update(1)
    write_whole(as_path(options.out), "".join(written))
    for one in faults:
        say(f"line {one['line']}: {one['error']}")
    print(f"{options.out}: {len(lines) - len(faults)} of {len(lines)} lines have the times of their words")
    return {"out": str(options.out), "lines": len(lines), "without_times": faults}


def lines_of(manifest: Path) -> list[Line]:
    """The rows of a manifest; raises `UserError` for a line that is no JSON object."""
    require(manifest.is_file(), "manifest", str(manifest), "there is no such file")
    found = []
    for number, text in enumerate(manifest.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise UserError(f"line {number} of {str(manifest)!r} is no JSON: {error}") from None
        require(isinstance(line, dict), f"line {number}", text[:40], "must be an object")
        found.append(line)
    require(bool(found), "manifest", str(manifest), "it has no lines")
    return found


def aligned(reader: "CTCReader", lines: Sequence[Line], options: AlignOptions) -> Iterator[tuple[Line, str | None]]:
    """Every line with the times of its words, or as it is with the reason."""
    for start in range(0, len(lines), reader.rows):
        some = lines[start : start + reader.rows]
        items = [item_of(reader, line, options.manifest.parent) for line in some]
        readable = [item for item in items if isinstance(item, dict)]
        times = iter(reader.times(readable))
        for line, item in zip(some, items, strict=True):
            if isinstance(item, str):
                yield line, item
                continue
            found = next(times)
            timed = None if found is None else words_at(line["text"], found)
            yield (line, "its text does not fit into its frames") if timed is None else (line | {"words": timed}, None)


def item_of(reader: "CTCReader", line: Line, folder: Path) -> dict[str, Any] | str:
    """What the reader reads of a line, or why it cannot."""
    from slm_jax.audio.files import read_audio

    if not isinstance(line.get("audio_filepath"), str) or not str(line.get("text") or "").strip():
        return "it has no audio_filepath or no text"
    offset_s = line.get("offset")
    duration_s = None if offset_s is None else line.get("duration")  # of a whole file it is a remark
    try:
        samples = read_audio(folder / line["audio_filepath"], offset_s=offset_s or 0.0, duration_s=duration_s)
    except UserError as error:
        return str(error)
    item = {"samples": samples, "text": line["text"]}
    if reader.example.fits(item):
        return item
    most = f"{reader.example.samples / 16_000:g} and {reader.example.labels}"
    return f"{len(samples) / 16_000:.1f} s and {len(line['text'])} characters: the stage takes {most}"


def words_at(text: str, found: Any) -> list[dict[str, Any]]:
    """Words as they are written, where there are as many, with their times."""
    written = text.split()
    words = written if len(written) == len(found.words) else found.words
    times = zip(words, found.start_s, found.end_s, strict=True)
    return [{"word": word, "start": round(float(a), 3), "end": round(float(b), 3)} for word, a, b in times]


def moved(line: Line, options: AlignOptions) -> Line:
    """The line as it is right beside the new file: paths that were relative to the old folder are whole."""
    name = line.get("audio_filepath")
    if not isinstance(name, str) or options.manifest.parent.resolve() == options.out.parent.resolve():
        return line
    return line | {"audio_filepath": str((options.manifest.parent / name).resolve())}
