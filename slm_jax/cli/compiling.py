"""On a CPU the compiler takes a large part of a demo's time: here it is told to make less effort."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

KNOWN_TO = "0.10."
"""The jaxlib whose flags these are; XLA ends a process that is given one it does not know."""
LITTLE_EFFORT = (
    "--xla_backend_optimization_level=1",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
)
ACCELERATORS = ("nvidia0", "accel0", "vfio/0", "kfd", "dxg")
"""Devices under /dev of GPUs and TPUs."""


def compile_quickly(devices: Path = Path("/dev")) -> None:
    """Let XLA compile for a CPU in about two thirds of the time; nothing where there may be an accelerator.

    What it makes was as fast, or up to a quarter slower (figures in `BUILD_NOTES.md`). Last digits differ: checkpoints
    name the flags. A user's own `XLA_FLAGS` are left alone. To be called before JAX is imported.
    """
    if "XLA_FLAGS" not in os.environ and _for_a_cpu(devices) and _jaxlib().startswith(KNOWN_TO):
        os.environ["XLA_FLAGS"] = " ".join(LITTLE_EFFORT)


def _for_a_cpu(devices: Path) -> bool:
    wanted = os.environ.get("JAX_PLATFORMS")
    return wanted == "cpu" if wanted else not any((devices / name).exists() for name in ACCELERATORS)


def _jaxlib() -> str:
    try:
        return version("jaxlib")
    except PackageNotFoundError:
        return ""
