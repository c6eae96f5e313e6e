"""Quick compilation: when it is asked for, and that XLA knows what it is told."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from slm_jax.cli import compiling
from slm_jax.cli.compiling import KNOWN_TO, LITTLE_EFFORT, compile_quickly


@pytest.fixture(autouse=True)
def without_settings(monkeypatch):
    """No flags for XLA and no platforms for JAX; those of the tests are back at the end."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)


def flags_after(devices):
    compile_quickly(devices)
    return os.environ.pop("XLA_FLAGS", None)


def test_flags_are_set_for_a_cpu_only(monkeypatch, tmp_path):
    assert flags_after(tmp_path) == " ".join(LITTLE_EFFORT)
    (tmp_path / "nvidia0").touch()
    assert flags_after(tmp_path) is None
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert flags_after(tmp_path) == " ".join(LITTLE_EFFORT)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert flags_after(tmp_path / "nowhere") is None


def test_a_users_flags_and_other_versions_are_left_alone(monkeypatch, tmp_path):
    os.environ["XLA_FLAGS"] = "--xla_dump_to=there"
    assert flags_after(tmp_path) == "--xla_dump_to=there"
    monkeypatch.setattr(compiling, "version", lambda name: "0.11.0")
    assert flags_after(tmp_path) is None


@pytest.mark.skipif(not version("jaxlib").startswith(KNOWN_TO), reason="the flags are those of another jaxlib")
def test_xla_knows_the_flags():
    program = (
        "from slm_jax.cli.compiling import compile_quickly; compile_quickly(); "
        "import jax, os; print(jax.jit(abs)(-1.0), os.environ['XLA_FLAGS'])"
    )
    variables = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1.0 " + " ".join(LITTLE_EFFORT)
