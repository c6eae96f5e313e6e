"""The mesh of devices, built from a config."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.parallel.rules import AXES, RULES

SIZES = ("slices", "data", "fsdp", "sequence", "tensor")
"""Fields of `MeshConfig`, in the order of `AXES`."""


class MeshConfig(Config):
    """How devices are arranged, outermost axis first: the last axes lie on neighbouring devices.

    `slices`: groups of devices joined by the data-centre network only (several TPU slices). `data`: replicas of the
    model. `fsdp`: devices over which each replica's weights are spread, gathered when they are used. `sequence`:
    devices that share the time of each row. `tensor`: devices that share each layer's products. At most one of `data`
    and `fsdp` may be -1, which means: all devices that are left. Rows of a batch are spread over the first three.
    `rules` names the table of `parallel.rules` that says which weight axis lies on which mesh axis.
    """

    slices: int = 1
    data: int = -1
    fsdp: int = 1
    sequence: int = 1
    tensor: int = 1
    rules: Literal["ddp", "fsdp", "tensor", "fsdp+tensor"] = "ddp"

    def __post_init__(self) -> None:
        for name in ("data", "fsdp"):
            value = getattr(self, name)
            require(value == -1 or value >= 1, f"mesh.{name}", value, "must be -1 (all that are left) or at least 1")
        for name in ("slices", "sequence", "tensor"):
            require(getattr(self, name) >= 1, f"mesh.{name}", getattr(self, name), "must be at least 1")
        require(not self.data == self.fsdp == -1, "mesh.data and mesh.fsdp", -1, "only one of them may be -1")
        require(self.rules in RULES, "mesh.rules", self.rules, f"must be one of {', '.join(RULES)}")
        shared = self.tensor == 1 or "tensor" in self.rules
        require(shared, "mesh.tensor", self.tensor, f"the rules {self.rules!r} put nothing on this axis")

    def shape(self, devices: int) -> tuple[int, ...]:
        """The size of each axis for a number of devices; raises `UserError` when they do not fit."""
        sizes = [getattr(self, name) for name in SIZES]
        shown = " x ".join(map(str, sizes))
        known = math.prod(size for size in sizes if size != -1)
        if -1 in sizes:
            require(devices % known == 0, "mesh", shown, f"{devices} devices do not divide")
            return tuple(devices // known if size == -1 else size for size in sizes)
        require(known == devices, "mesh", shown, f"must use all {devices} devices")
        return tuple(sizes)

    def make(self, devices: Sequence[Any] | None = None) -> Mesh:
        """A mesh over `devices` (all of them when None) with the axes `AXES`.

        The axes are of type Auto: XLA's partitioner places what is not constrained. Under the default (Explicit)
        Linen's logical sharding and plain products of sharded arrays raise.
        """
        devices = list(jax.devices() if devices is None else devices)
        sizes = self.shape(len(devices))
        inner = [
            mesh_utils.create_device_mesh(sizes[1:], devices=group, allow_split_physical_axes=True)
            for group in slices_of(devices, sizes[0])
        ]
        return Mesh(np.stack(inner), AXES, axis_types=(AxisType.Auto,) * len(AXES))

    def plan(self, devices: int) -> AbstractMesh:
        """The mesh that `make` gives on a machine with this many devices, none of which needs to be here."""
        return AbstractMesh(self.shape(devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slices_of(devices: Sequence[Any], count: int) -> list[list[Any]]:
    """`devices` in `count` groups: by the slice they say they belong to, else in order.

    Raises `UserError` when the devices form another number of slices.
    """
    numbers = {getattr(device, "slice_index", None) or 0 for device in devices}
    if len(numbers) == 1:  # one slice, or devices without slices: neighbours stay together
        size = len(devices) // count
        return [list(devices[i * size : (i + 1) * size]) for i in range(count)]
    require(len(numbers) == count, "mesh.slices", count, f"the devices form {len(numbers)} slices")
    return [[device for device in devices if device.slice_index == number] for number in sorted(numbers)]
