"""Archives whose file names tell the pairs: the spoken StoryClozes, SALMon, and the numbered files that slamkit reads.

StoryCloze   tSC/0_STORY_correct.wav, tSC/1_STORY_incorrect.wav, 2_..., 3_...; or 0_correct.wav, 0_incorrect.wav
SALMon       salmon_benchmark/gender_consistency/sample_0_0.wav (right), sample_0_1.wav (wrong), sample_1_0.wav ...
Numbered     swuggy_inter/VOICE/0_word.wav (right), 1_nonword.wav (wrong), 2_...; sblimp/TYPE/0+....wav, 1+....wav

Other files, such as the texts of StoryCloze, are passed over.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from slm_jax.core.errors import UserError, require
from slm_jax.data.pairs.files import audio_below, checked_audio, partners
from slm_jax.data.pairs.pair import FileClip, SpeechPair

CLOZE = re.compile(r"(\d+)(?:_(.+))?_(in)?correct")
SAMPLE = re.compile(r"sample_(\d+)_(.+)")
NUMBERED = re.compile(r"(\d+)([_+]).*")
Matched = dict[Path, re.Match[str]]
Key = tuple[str, ...]


def read_cloze(folder: Path) -> list[SpeechPair]:
    """sStoryCloze or tStoryCloze (Hassid et al. 2023): a story with its own ending, and with another.

    With the story's name between number and word the members have neighbouring numbers, without it the same one. The
    test is called like the folder. Raises `UserError` that names the file where a member is missing or there twice.
    """
    members = defaultdict(list)
    for path, name in _matched(folder, CLOZE).items():
        number, story, wrong = int(name[1]), name[2], name[3] is not None
        key = (str(number - 1 if wrong else number), story) if story else (name[1],)
        members[(_group(path, folder), *key)].append((not wrong, path))
    return _pairs(folder.resolve().name, partners(members))


def read_salmon(folder: Path) -> list[SpeechPair]:
    """SALMon (Maimon et al. 2024): of the files of a sample the first by name is right; each folder is a task.

    Raises `UserError` that names the file where a sample has not just two.
    """
    samples: dict[Key, list[Path]] = defaultdict(list)
    for path, name in _matched(folder, SAMPLE).items():
        samples[(_group(path, folder) or folder.resolve().name, name[1])].append(path)
    members = {key: [(place == 0, path) for place, path in enumerate(sorted(paths))] for key, paths in samples.items()}
    return _pairs("SALMon", partners(members))


def read_numbered(folder: Path) -> list[SpeechPair]:
    """Files that begin with a number and `_` (sWUGGY) or `+` (sBLIMP), as slamkit (Maimon et al. 2025) has them.

    In each folder the files are taken in the order of their numbers, two and two: the first is right, the second, which
    has the next number, is wrong. Groups are the folders below. Raises `UserError` that names the file whose partner is
    missing, and both where two have one number.
    """
    places: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path, name in _matched(folder, NUMBERED).items():
        places[_group(path, folder)].append((int(name[1]), path))
    both: dict[Key, tuple[Path, Path]] = {
        (group, str(right[0])): (right[1], wrong[1]) for group, right, wrong in _in_twos(places.items())
    }
    return _pairs(folder.resolve().name, both)


def _in_twos(
    places: Iterable[tuple[str, Sequence[tuple[int, Path]]]],
) -> list[tuple[str, tuple[int, Path], tuple[int, Path]]]:
    """(group, right, wrong) of numbered files."""
    found = []
    for group, files in places:
        order = sorted(files)
        for one, after in itertools.pairwise(order):
            if one[0] == after[0]:
                shown = f"{str(one[1])!r} and {str(after[1])!r}"
                raise UserError(f"{shown} have one number: which is the right one cannot be told")
        while order:
            right, *rest = order
            if not rest or rest[0][0] != right[0] + 1:
                raise UserError(f"{str(right[1])!r} has no partner: there is no file with number {right[0] + 1}")
            found.append((group, right, rest[0]))
            order = rest[1:]
    return found


def _pairs(test: str, both: dict[Key, tuple[Path, Path]]) -> list[SpeechPair]:
    """Pairs by key, whose first word is the group, in the order of their numbers."""
    checked_audio(path for pair in both.values() for path in pair)
    order = sorted(both, key=lambda key: (key[0], int(key[1])))
    ids = {key: "/".join(filter(None, key)) for key in order}
    return [SpeechPair(test, ids[key], ids[key], key[0], *map(FileClip, both[key])) for key in order]


def _matched(folder: Path, form: re.Pattern[str]) -> Matched:
    """The audio files below a folder with their names taken apart; raises `UserError` for one of another form."""
    found = {}
    for path in audio_below(folder):
        name = form.fullmatch(path.stem)
        require(name is not None, "audio file", str(path), "is not called as the others below this folder are")
        assert name is not None  # for the type checker
        found[path] = name
    return found


def _group(path: Path, folder: Path) -> str:
    """The folders between `folder` and a file."""
    inside = path.parent.relative_to(folder).as_posix()
    return "" if inside == "." else inside


Reader = Callable[[Path], list[SpeechPair]]
BY_NAME: dict[str, tuple[re.Pattern[str], Reader]] = {
    "StoryCloze": (CLOZE, read_cloze),
    "SALMon": (SAMPLE, read_salmon),
    "numbered": (NUMBERED, read_numbered),
}
"""Form -> how its files are called, and who reads it; the first that fits is taken."""
