"""What the machine is and what it can do at most."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.interop.reference_bench import cores, torch_ceilings

PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "faiss-cpu", "numpy")


def machine() -> dict[str, Any]:
    """Processor, cores, load, devices and versions."""
    versions = {name: _version(name) for name in PACKAGES}
    devices = [device.device_kind for device in jax.devices()]
    return {
        "processor": processor(),
        "cores": cores(),
        "load": os.getloadavg(),
        "backend": jax.default_backend(),
        "devices": devices,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        "versions": versions,
    }


def fresh_compilation() -> None:
    """Compile anew instead of reading kept programs, so that compile times are those of a first run."""
    jax.config.update("jax_enable_compilation_cache", False)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def ceilings(repeats: int = 5, size: int = 2048, megabytes: int = 256) -> dict[str, float]:
    """The best matrix product (GFLOP/s) and memory traffic (GB/s) that JAX, PyTorch or NumPy reach here, float32.

    A copy counts what it reads and what it writes.
    """
    product, moved = 2 * size**3 / 1e9, megabytes * 2**20 / 1e9
    sides = [side(size, megabytes) for side in (torch_ceilings, _jax_ceilings, _numpy_ceilings)]
    best = {name: min(_fastest(side[name], repeats) for side in sides) for name in sides[0]}
    return {"gflop_s": product / best["matmul"], "gbyte_s": max(2 * moved / best["copy"], moved / best["read"])}


def _jax_ceilings(size: int, megabytes: int) -> dict[str, Callable[[], Any]]:
    a = jnp.ones((size, size))
    source = jnp.ones(megabytes * 2**18)
    product, copy, read = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + 1), jax.jit(jnp.sum)
    return {
        "matmul": lambda: product(a).block_until_ready(),
        "copy": lambda: copy(source).block_until_ready(),
        "read": lambda: read(source).block_until_ready(),
    }


def _numpy_ceilings(size: int, megabytes: int) -> dict[str, Callable[[], Any]]:
    a = np.ones((size, size), np.float32)
    source = np.ones(megabytes * 2**18, np.float32)
    target = np.empty_like(source)
    return {"matmul": lambda: a @ a, "copy": lambda: np.copyto(target, source), "read": source.sum}


def _fastest(run: Callable[[], Any], repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
