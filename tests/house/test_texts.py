"""No file of the repository tells on which machine or with which services it was made."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED_FOLDERS = {".git", ".venv", "runs", "data", "build", "dist", "__pycache__"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".jsonl", ".html", ".cfg", ".sh", ""}
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(work|tmp|root|home|opt|mnt|Users)/\w",
    "a package registry's host": r"(pypi|pythonhosted|npmjs|crates|golang)\.(org|io|com)\b",
    "an index setting": r"--(extra-)?index-url|--find-links",
    "an assistant": r"(?i)\b(sub-?agents?|claude|anthropic|chat ?gpt|copilot)\b",
}


def problems(text: str) -> Iterator[str]:
    for what, pattern in FORBIDDEN.items():
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                yield f"line {number} names {what}: {line.strip()[:100]}"


def text_files() -> list[Path]:
    tops = [path for path in ROOT.iterdir() if path.name not in SKIPPED_FOLDERS and not path.name.endswith("_cache")]
    below = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    return [
        path
        for path in below
        if path.is_file()
        and path.suffix in TEXT_SUFFIXES
        and "__pycache__" not in path.parts
        and path != Path(__file__)
    ]


def test_texts_are_free_of_the_machine_they_were_written_on():
    found = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in text_files()
        for problem in problems(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_walk_sees_the_repository():
    seen = {path.relative_to(ROOT).as_posix() for path in text_files()}
    assert {"pyproject.toml", "Makefile", "requirements.txt", ".ci/run", "slm_jax/core/config.py"} <= seen


@pytest.mark.parametrize(
    "text",
    [
        "read " + "/work" + "/main/x.txt",
        'path = "/tmp/out"',
        "see /home/ann/notes",
        "https://" + "pypi" + ".org/simple",
        "--extra-index-url file:x",
        "written by Claude",
    ],
)
def test_each_of_these_is_caught(text):
    assert list(problems(text))


@pytest.mark.parametrize("text", ["a framework/main", "tmp_path / 'x'", "runs/demo", "and/or", "net/worked/x"])
def test_normal_text_passes(text):
    assert list(problems(text)) == []
