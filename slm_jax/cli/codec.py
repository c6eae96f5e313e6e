"""Recordings to the codes of a neural codec, and codes to sound."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from slm_jax.cli.console import Failed, say
from slm_jax.cli.options import parse_options
from slm_jax.core.errors import UserError, require

if TYPE_CHECKING:
    from slm_jax.assemblies.codec_tokenizer import CodecTokenizer

CODES = ".codes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """`encode` makes a file of codes of each recording, `decode` a WAV of each file of codes.

    Exit code 1 when some of several files cannot be read, 2 when none can.
    """

    action: Annotated[Literal["encode", "decode"], tyro.conf.Positional]
    """To codes, or to sound."""
    codec: Annotated[str, tyro.conf.Positional]
    """A run folder with a codec in it, a folder as the hub lays it out, one that `convert` made, or hub:NAME."""
    source: Annotated[Path, tyro.conf.Positional]
    """A recording of any rate and common format, or a file of codes; or a folder of such."""
    out: Annotated[Path, tyro.conf.Positional]
    """Where it goes: a file, or a folder where `source` is one."""
    books: int | None = None
    """Codebooks that are used when encoding: fewer for a lower bitrate."""
    stage: str | None = None
    """The stage of the run that trained the codec; by default its last one that did."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Print and return what became of each file."""
    options = parse_options(CodecOptions, argv, "codec")
    jobs = files_of(options)
    model = opened(options)
    encodes = options.action == "encode"
    rows = []
    for source, out in jobs:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            row = encoded(model, source, out) if encodes else decoded(model, source, out)
            print(told(row), flush=True)
        except UserError as error:
            row = {"file": str(source), "error": str(error)}
            if len(jobs) > 1:
                say(f"error: {error}")
        rows.append(row)
    faulty = [row for row in rows if "error" in row]
    if len(faulty) == len(rows):
        raise UserError(faulty[0]["error"] if len(rows) == 1 else f"none of the {len(rows)} files can be used")
    result = {"codec": options.codec, "spec": model.spec.describe(), "bits_per_second": model.bits_per_second}
    result |= {"files": rows}
    if faulty:
        raise Failed(result)
    return result


def files_of(options: CodecOptions) -> list[tuple[Path, Path]]:
    """What is read, and where each goes."""
    from slm_jax.audio.formats import READ

    require(options.source.exists(), "source", str(options.source), "there is no such file or folder")
    suffix = CODES if options.action == "encode" else ".wav"
    if options.source.is_file():
        return [(options.source, options.out / (options.source.stem + suffix) if options.out.is_dir() else options.out)]
    wanted = READ if options.action == "encode" else {CODES}
    found = sorted(path for path in options.source.rglob("*") if path.suffix.lower() in wanted)
    require(bool(found), "source", str(options.source), f"the folder has no file of {', '.join(sorted(wanted))}")
    jobs = [(path, options.out / path.relative_to(options.source).with_suffix(suffix)) for path in found]
    made = Counter(out for _, out in jobs)
    twice = [str(path) for path, out in jobs if made[out] > 1]
    require(not twice, "source", twice[:2], "both would be written to one file: give them different names")
    return jobs


def opened(options: CodecOptions) -> "CodecTokenizer":
    """The codec of a run, or of a folder."""
    from slm_jax.interop.codecs import load_codec
    from slm_jax.training.run_codec import is_run, run_codec

    if is_run(options.codec):
        return run_codec(Path(options.codec), options.stage, options.books)
    require(options.stage is None, "--stage", options.stage, f"{options.codec} is no run folder")
    return load_codec(options.codec, options.books)


def encoded(model: "CodecTokenizer", source: Path, out: Path) -> dict[str, Any]:
    """A recording as a file of codes."""
    from slm_jax.assemblies.codec_files import write_codes
    from slm_jax.audio.files import read_audio

    samples = read_audio(source, rate_hz=model.config.rate_hz)
    ids = model.encode(samples)
    size = write_codes(out, model, ids, len(samples))
    seconds = len(samples) / model.config.rate_hz
    return {
        "file": str(source),
        "out": str(out),
        "seconds": seconds,
        "frames": len(ids),
        "books": ids.shape[1],
        "bytes": out.stat().st_size,
        "bits_per_second": 8 * size / seconds,
    }


def decoded(model: "CodecTokenizer", source: Path, out: Path) -> dict[str, Any]:
    """A file of codes as a recording."""
    from slm_jax.assemblies.codec_files import read_codes
    from slm_jax.audio.files import write_wav

    ids, count = read_codes(source, model)
    samples = model.decode(ids, count)
    write_wav(out, samples, model.config.rate_hz)
    seconds = len(samples) / model.config.rate_hz
    return {"file": str(source), "out": str(out), "seconds": seconds, "frames": len(ids), "books": ids.shape[1]}


def told(row: dict[str, Any]) -> str:
    """One line about a file."""
    rate = f", {row['bits_per_second'] / 1000:.2f} kb/s" if "bits_per_second" in row else ""
    return (
        f"{row['file']} -> {row['out']}: {row['seconds']:.2f} s, {row['frames']} frames of {row['books']} codes{rate}"
    )
