"""TPU slices that are not here: their devices, for which programs can be compiled on any machine that has libtpu."""

import dataclasses
import importlib.util
import math
import os
import re
from pathlib import Path
from typing import Any

from slm_jax.core.errors import UserError, nearest, require
from slm_jax.parallel.chips import CHIPS, Chip

FORM = re.compile(r"(?P<chip>[a-z0-9]+):(?P<shape>\d+(x\d+)*)")
AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
"""Chip -> axes of its slices."""
HOST = (2, 2, 1)
"""Chips of one host."""
POD = {"v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256, "tpu7x": 9216}
"""Chip -> the most chips of one slice (same source as `parallel.chips`)."""
CONFIGS: dict[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}
"""What libtpu must be told to show the devices that JAX shows on the real thing."""
ALIASES = {"v7x": "tpu7x", "v5lite": "v5e", "v5litepod": "v5e", "v6lite": "v6e"}

# libtpu looks for a real TPU and its metadata server when it loads, and lets one process at a time have it; neither
# has anything to do with compiling for another machine.
GOOGLE = "0x1ae0"
"""Vendor of TPUs on a PCI bus."""
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice (or several equal ones) of `shape` chips each, by the name JAX knows it under."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return len(self.devices) // self.chip.devices

    @property
    def ici_bytes_per_s(self) -> float:
        """What each device takes in over the links of its slice, at best."""
        return self.chip.ring_bytes_per_s(self.shape) / self.chip.devices


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """`v5p:4x4x4` -> the chip and the shape; raises `UserError` that shows the nearest right form."""
    match = FORM.fullmatch(name.lower().replace("-", ""))
    chip = ALIASES.get(match["chip"], match["chip"]) if match else ""
    if match is None or chip not in AXES:
        guess = nearest(name.lower().partition(":")[0], AXES) or f" (did you mean {'v5e:2x2'!r}?)"
        raise UserError(f"topology is {name!r}: must be CHIP:SHAPE such as v5e:16x16, CHIP of {', '.join(AXES)}{guess}")
    shape = tuple(int(size) for size in match["shape"].split("x"))
    if len(shape) != AXES[chip]:
        padded = "x".join(map(str, (*shape, *(1,) * AXES[chip])[: AXES[chip]]))
        rule = f"a slice of {chip} has {AXES[chip]} axes (did you mean '{chip}:{padded}'?)"
        raise UserError(f"topology is {name!r}: {rule}")
    require(min(shape) >= 1, "topology", name, "every axis has at least one chip")
    return CHIPS[chip], shape


def make_topology(name: str, slices: int = 1) -> Topology:
    """The devices of `slices` slices called `name`, such as `v5e:16x16`; no TPU is needed.

    Raises `UserError` when libtpu is missing or the chip has no slices of that shape.
    """
    chip, shape = parse_topology(name)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("libtpu is not installed, which compiles for TPUs: pip install -e '.[tpu]'")
    most = POD[chip.name]
    require(
        math.prod(shape) <= most, "topology", name, f"a slice of {chip.name} has at most {most} chips; join several"
    )
    rule = f"how fast slices of {chip.name} reach each other is not published; take one slice"
    require(slices == 1 or chip.dcn_bytes_per_s is not None, "mesh.slices", slices, rule)
    quiet_libtpu()
    right = f"{chip.name}:{'x'.join(map(str, shape))}"
    try:
        devices = _devices(chip, shape, right, slices)
    except Exception as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"topology is {name!r}: libtpu knows no such slice ({told}); {nearby(chip, shape)}") from error
    return Topology(right, chip, shape, slices, tuple(devices))


def quiet_libtpu() -> None:
    """Keep libtpu from looking for a TPU where there is none; to be called before JAX loads it.

    Nothing is changed on a machine with a device of Google's on its bus.
    """
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    if any(vendor.read_text().strip() == GOOGLE for vendor in vendors):
        return
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _devices(chip: Chip, shape: tuple[int, ...], name: str, slices: int) -> list[Any]:
    from jax.experimental import topologies

    options = dict(CONFIGS.get(chip.name, {}))
    if slices > 1:
        options["num_slices"] = slices
    if math.prod(shape) < math.prod(HOST):  # less than the four chips of a host
        options["chips_per_host_bounds"] = [*shape, 1][:3]
    return topologies.get_topology_desc(topology_name=name, platform="tpu", **options).devices


def nearby(chip: Chip, shape: tuple[int, ...]) -> str:
    """A shape that exists."""
    powers = tuple(max(least, 1 << (size - 1).bit_length()) for size, least in zip(shape, HOST, strict=False))
    return f"a slice near it is {chip.name}:{'x'.join(map(str, powers))}"
