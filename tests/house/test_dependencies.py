"""`pyproject.toml` lists what the package imports, all of it and nothing else; the lock satisfies it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.rules import Source, imports

ROOT = Path(__file__).parents[2]
DISTRIBUTION = {
    "absl": "absl-py",
    "faiss": "faiss-cpu",
    "hibari": "hibari-tts",
    "orbax": "orbax-checkpoint",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
}
"""Names to import -> names to install, where they differ by more than `_` and `-`."""
OPTIONAL = {
    *("aiohttp", "torch", "transformers", "safetensors", "tensorflow", "faiss-cpu", "peft", "pesq", "moshi"),
    *("apache-beam", "pyarrow"),
}
"""Imported inside functions; an extra of the package brings them."""
WITHOUT_EXTRA = {"tensorflow", "moshi"}
"""But not these: one is there under another name, one wants an older torch than the rest (`make test` installs it)."""


def third_party(sources: list[Source]) -> set[str]:
    """Canonical names of the distributions that the sources import."""
    roots = {name.split(".")[0] for source in sources for _, name in imports(source.tree)}
    own = {"slm_jax", "", "tests"} | sys.stdlib_module_names
    return {str(canonicalize_name(DISTRIBUTION.get(root, root))) for root in roots - own}


def names_of(requirements: list[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(line).name)) for line in requirements}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_import_is_declared_and_every_dependency_used(project):
    sources = [Source(p.relative_to(ROOT).as_posix(), p.read_text()) for p in (ROOT / "slm_jax").rglob("*.py")]
    assert third_party(sources) - OPTIONAL == names_of(project["dependencies"])


def test_optional_imports_have_an_extra(project):
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    assert {canonicalize_name(name) for name in OPTIONAL} - WITHOUT_EXTRA <= names_of(extras)
    assert "tensorflow-cpu" in names_of(extras)


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.txt", ()),
        ("requirements-beam.txt", ("beam",)),
        ("requirements-test.txt", ("test", "torch", "eval")),
        ("requirements-dev.txt", ("dev",)),
    ],
)
def test_the_lock_satisfies_the_ranges(project, lock, extras):
    alone = lock == "requirements-beam.txt"  # its versions are other ones, so that it is whole by itself
    text = (ROOT / lock).read_text() + ("" if alone else (ROOT / "requirements.txt").read_text())
    locked = [Requirement(line) for line in text.splitlines() if re.match(r"\w", line)]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        pins = [pin for pin in locked if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert pins, f"{lock} lacks {requirement.name}: make lock"
        for pin in pins:
            version = str(pin.specifier).removeprefix("==")
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} against {requirement}: make lock"


def test_an_undeclared_import_is_seen():
    sources = [Source("slm_jax/nn/a.py", "import os\nimport soxr\ndef f():\n    from sklearn import cluster")]
    assert third_party(sources) == {"soxr", "scikit-learn"}
