"""Pairs of clips in an archive as it was downloaded and unpacked: `read_pairs(folder)` recognises its form.

sWUGGY, sBLIMP             a list `gold.csv` beside files without telling names      (`data.pairs.listed`)
sStoryCloze, tStoryCloze   0_STORY_correct.wav, 1_STORY_incorrect.wav                (`data.pairs.named`)
SALMon                     TASK/sample_0_0.wav, TASK/sample_0_1.wav                  (`data.pairs.named`)
Numbered                   0_word.wav, 1_nonword.wav; 0+....wav, 1+....wav           (`data.pairs.named`)
"""

from pathlib import Path

from slm_jax.core.errors import UserError, nearest, require
from slm_jax.data.pairs.files import audio_below
from slm_jax.data.pairs.listed import lists_below, read_listed
from slm_jax.data.pairs.named import BY_NAME, Reader
from slm_jax.data.pairs.pair import SpeechPair

FORMS = ("gold.csv", *BY_NAME)


def read_pairs(folder: str | Path) -> list[SpeechPair]:
    """The pairs of an archive; headers of all audio files are read, samples only when a clip is asked for them.

    Raises `UserError`, which names the file, where the folder is missing or holds no audio, where its files are of no
    known form, where a member of a pair is missing or there twice, and for a file that is no audio.
    """
    folder = Path(folder)
    near = nearest(folder.name, [one.name for one in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
    require(folder.is_dir(), "folder of pairs", str(folder), f"no such folder{near}")
    if lists_below(folder):
        return read_listed(folder)
    files = audio_below(folder)
    require(bool(files), "folder of pairs", str(folder), "holds no audio file")
    return _reader(folder, files)(folder)


def _reader(folder: Path, files: list[Path]) -> Reader:
    """Who reads files that are called like the first one."""
    for form, read in BY_NAME.values():
        if form.fullmatch(files[0].stem):
            return read
    known = ", ".join(FORMS)
    raise UserError(f"folder of pairs {str(folder)!r}: {files[0].name!r} is of no known form; known are {known}")
