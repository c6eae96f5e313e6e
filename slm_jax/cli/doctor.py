"""Show versions, devices, cores, memory, disk and missing extras.

Nothing here needs more than the standard library, JAX excepted, so that it also runs in a half-installed environment.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import slm_jax
from slm_jax.cli.console import table
from slm_jax.cli.options import parse_options

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "tyro")
EXTRAS = {
    "tpu": ("libtpu",),
    "cuda": ("jax_cuda12_plugin",),
    "torch": ("torch", "transformers", "safetensors"),
    "bench": ("torch", "transformers", "safetensors", "faiss"),
    "eval": ("jiwer", "pesq", "sklearn"),
    "gcs": ("gcsfs",),
    "tfds": ("tensorflow",),
    "serve": ("aiohttp",),
    "beam": ("apache_beam",),
    "benchmarks": ("pyarrow",),
    "test": ("pytest", "pytest_timeout", "xdist", "beartype", "hypothesis", "sklearn"),
    "dev": ("ruff", "mypy", "pre_commit"),
}
"""Extra -> modules that it brings."""
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What this machine offers and what is missing."""

    workdir: Path = Path()
    """Folder whose disk is looked at."""
    json: bool = False
    """Print one JSON value instead of text."""


def main(argv: list[str]) -> dict[str, Any]:
    """Look at the machine, print what was found and return it."""
    options = parse_options(DoctorOptions, argv, "doctor")
    found = examine(options.workdir)
    print(report(found))
    return found


def examine(workdir: Path) -> dict[str, Any]:
    """Everything that `doctor` reports; memory and disk in GiB."""
    return {
        "slm_jax": slm_jax.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "memory_gib": memory_gib(),
        "disk_free_gib": round(shutil.disk_usage(nearest_folder(workdir)).free / GIB, 1),
        "packages": {name: version_of(name) for name in PACKAGES},
        "devices": devices(),
        "compile_cache": compile_cache(),
        "extras": {extra: missing_modules(modules) for extra, modules in EXTRAS.items()},
    }


def report(found: dict[str, Any]) -> str:
    """The text for people."""
    machine = [
        ("slm_jax", found["slm_jax"]),
        ("python", f"{found['python']} on {found['system']}"),
        ("cores", str(found["cores"])),
        ("memory", f"{found['memory_gib']} GiB"),
        ("disk free", f"{found['disk_free_gib']} GiB"),
        ("compile cache", found["compile_cache"]),
        *(("device", f"{device['count']} x {device['kind']}") for device in found["devices"]["found"]),
        *(("device", problem) for problem in found["devices"]["problems"]),
    ]
    packages = [(name, version or "MISSING") for name, version in found["packages"].items()]
    extras = [(name, advice(name, missing)) for name, missing in found["extras"].items()]
    return "\n\n".join(
        [table(machine), table(packages, ("package", "version")), table(extras, ("extra", "state"))],
    )


def advice(extra: str, missing: list[str]) -> str:
    """`installed`, or what is missing and the command that installs it."""
    if not missing:
        return "installed"
    return f"missing {', '.join(missing)}: pip install -e '.[{extra}]'"


def devices() -> dict[str, Any]:
    """Devices by kind, or why JAX does not start."""
    try:
        import jax

        kinds = [device.device_kind for device in jax.devices()]
    except (ImportError, RuntimeError) as error:
        return {"found": [], "problems": [f"JAX does not start: {str(error).splitlines()[0]}"]}
    return {"found": [{"kind": kind, "count": kinds.count(kind)} for kind in sorted(set(kinds))], "problems": []}


def compile_cache() -> str:
    """Where compiled programs are kept, with their size, or that they are not."""
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false"):
        return "off (JAX_ENABLE_COMPILATION_CACHE)"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not folder:
        return "off (JAX_COMPILATION_CACHE_DIR is not set)"
    sizes = [path.stat().st_size for path in Path(folder).glob("*")] if Path(folder).is_dir() else []
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 2**20:.0f} MiB)"


def usable_cores() -> int:
    """Cores this process may use; containers and `taskset` can allow fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)


def nearest_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists already."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def version_of(package: str) -> str | None:
    """The installed version, None when there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing_modules(modules: tuple[str, ...]) -> list[str]:
    """Those that cannot be found; nothing is imported."""
    return [name for name in modules if importlib.util.find_spec(name) is None]
