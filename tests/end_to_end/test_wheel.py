"""The package as users install it: a wheel in an empty folder, run from another one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("hubert", "lm", "vocoder", "durations")
SHORT = [option for stage in STAGES for option in (f"--{stage}.train.steps", "2")]
SHORT += ["--corpus.hours", "0.05", "--mfcc.kmeans.iterations", "2", "--units.kmeans.iterations", "2"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """(run in another folder, that folder): the wheel alone on the path, its dependencies from this interpreter."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *build, str(clean_source(folder / "source"))], check=True)
    (wheel,) = folder.glob("*.whl")
    target, elsewhere = folder / "site", folder / "elsewhere"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(target)}

    def run(*argv: str) -> subprocess.CompletedProcess:
        command = [sys.executable, *argv]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=600)

    where = run("-c", "import slm_jax; print(slm_jax.__file__)").stdout.strip()
    assert Path(where).is_relative_to(target), where
    return run, elsewhere


def clean_source(folder: Path) -> Path:
    """What the wheel is made of, without what earlier builds left beside it."""
    shutil.copytree(ROOT / "slm_jax", folder / "slm_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def verb(run, *argv):
    """The JSON value of a verb that must end well."""
    done = run("-m", "slm_jax", *argv, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow(seconds=40)
def test_it_knows_its_systems_and_its_machine(installed):
    run, _ = installed
    assert {"gslm", "twist"} <= {entry["name"] for entry in verb(run, "systems")}
    assert verb(run, "doctor")


@pytest.mark.slow(seconds=20)
def test_the_page_to_talk_to_a_run_is_in_it(installed):
    run, _ = installed
    page = "importlib.resources.files('slm_jax.serving.web').joinpath('page.html').read_text()"
    assert run("-c", f"import importlib.resources; print({page})").stdout.startswith("<!doctype html>")


@pytest.mark.slow(seconds=60)
def test_a_dry_run_takes_every_stage(installed):
    run, _ = installed
    done = verb(run, "train", "gslm:tiny", "--dry-run", *SHORT)
    assert {stage["stage"] for stage in done["stages"]} >= set(STAGES)


@pytest.mark.slow(seconds=150)
def test_the_demo_runs_from_any_folder(installed):
    run, elsewhere = installed
    done = verb(run, "demo", "--workdir", "demo", *SHORT)
    assert (elsewhere / done["report"]).is_file()
    assert done["figures"]["language_model"]["model"] > 0
