"""sWUGGY and sBLIMP as ZeroSpeech 2021 publishes them: audio files with names that tell nothing, and a list.

    sLM21-dataset/lexical/dev/gold.csv      id, filename, voice, frequency, word, phones, length, correct
    sLM21-dataset/lexical/dev/aAAfm.wav
    sLM21-dataset/syntactic/dev/gold.csv    id, filename, voice, type, subtype, transcription, correct

The whole folder is read, or any below it. Columns may come in any order, and more than are needed. The list may be
called `gold` too; audio lies beside it or in a folder `wav` or `audio` there, `filename` with its suffix or without. A
pair is a right and a wrong row of the same `id` and voice (and, in sBLIMP, type and subtype); its item is the same
without the voice, since ZeroSpeech averages over voices first.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from slm_jax.core.errors import UserError, require
from slm_jax.data.pairs.files import audio_below, checked_audio, partners
from slm_jax.data.pairs.pair import FileClip, SpeechPair

LISTS = ("gold.csv", "gold")
AUDIO = (".", "wav", "audio")
"""Where audio lies, seen from the list."""
LEXICAL, SYNTACTIC = ("frequency",), ("type", "subtype")
"""The columns by which the two tests are told apart."""
NEEDED = ("id", "filename", "voice", "correct")
Row = Mapping[str, str]


def lists_below(folder: Path) -> list[Path]:
    """The lists of a folder and of what is below it."""
    found = (path for name in LISTS for path in folder.rglob(name))
    return sorted(path for path in found if path.is_file() and "__MACOSX" not in path.parts)


def read_listed(folder: Path) -> list[SpeechPair]:
    """The pairs of all lists below a folder, a test for each.

    Groups: in sWUGGY whether the word is `in vocabulary`, that is, has a frequency in LibriSpeech; in sBLIMP the `type`
    of phenomenon. Raises `UserError` that names the file for a list with other columns, a row without its partner or
    with two, and audio that is missing or none.
    """
    return [pair for path in lists_below(folder) for pair in _read(path)]


def _read(path: Path) -> Iterator[SpeechPair]:
    rows = _rows(path)
    lexical = all(name in rows[0] for name in LEXICAL)
    test = f"{'sWUGGY' if lexical else 'sBLIMP'} {path.parent.resolve().name}"
    keys = NEEDED[:1] if lexical else (*SYNTACTIC, *NEEDED[:1])
    audio = _audio(path.parent)
    members, groups = defaultdict(list), {}
    for row in rows:
        key = "/".join(row[name] for name in keys), row["voice"]
        right = _is_right(row, path)
        members[key].append((right, audio.get(_stem(row), path.parent / f"{_stem(row)}.wav")))
        if right:
            groups[key] = _vocabulary(row) if lexical else row["type"]
    pairs = partners(members)
    checked_audio(one for both in pairs.values() for one in both)
    for key, (right_file, wrong_file) in pairs.items():
        item, voice = key
        yield SpeechPair(test, f"{item}/{voice}", item, groups[key], FileClip(right_file), FileClip(wrong_file))


def _rows(path: Path) -> list[Row]:
    """The rows of a list whose columns are those of one of the two tests."""
    try:
        rows: list[Row] = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"list {str(path)!r} cannot be read: {error}") from error
    require(bool(rows), "list", str(path), "it has no row")
    known = set(rows[0])
    fits = set(NEEDED) <= known and (set(LEXICAL) <= known or set(SYNTACTIC) <= known)
    rule = f"needs {', '.join(NEEDED)} and {' '.join(LEXICAL)} (sWUGGY) or {' and '.join(SYNTACTIC)} (sBLIMP)"
    require(fits, f"columns of {str(path)!r}", sorted(map(str, known)), rule)
    filled = NEEDED if set(LEXICAL) <= known else (*NEEDED, *SYNTACTIC)
    for place, row in enumerate(rows, start=2):
        short = [name for name in filled if not row[name]]
        require(not short, f"row {place} of {str(path)!r}", dict(row), f"has no {', '.join(short)}")
    return rows


def _audio(folder: Path) -> dict[str, Path]:
    """Audio files by their names without suffix."""
    places = [folder / name for name in AUDIO if (folder / name).is_dir()]
    return {path.stem: path for place in places for path in audio_below(place) if path.parent == place}


def _stem(row: Row) -> str:
    name = row["filename"]
    return Path(name).stem if Path(name).suffix.lower() == ".wav" else name


def _is_right(row: Row, path: Path) -> bool:
    """Is it the right member?"""
    said = row["correct"].strip()
    require(said in ("0", "1"), f"correct of {row['filename']!r} in {str(path)!r}", said, "is 0 or 1")
    return said == "1"


def _vocabulary(row: Row) -> str:
    """Is a word in the vocabulary of LibriSpeech, by its frequency there?"""
    try:
        return "in vocabulary" if float(row["frequency"] or "") >= 1 else "out of vocabulary"
    except ValueError:
        return "frequency unknown"
