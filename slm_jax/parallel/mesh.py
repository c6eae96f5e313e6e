"""The mesh of devices, built from a config."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

from slm_jax.core.config import Config
from slm_jax.core.errors import require

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"


class MeshConfig(Config):
    """How devices are arranged: `data` replicas of the model, each sharded over `fsdp` devices.

    At most one of the two may be -1, which means: all devices that are left. Rows of a batch are spread over both
    axes. `rules` names the table of `parallel.rules` that says which weight axis lies on which mesh axis.
    """

    data: int = -1
    fsdp: int = 1
    rules: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self) -> None:
        for name in ("data", "fsdp"):
            value = getattr(self, name)
            require(value == -1 or value >= 1, f"mesh.{name}", value, "must be -1 (all that are left) or at least 1")
        require(not self.data == self.fsdp == -1, "mesh.data and mesh.fsdp", -1, "only one of them may be -1")
        require(self.rules in ("ddp", "fsdp"), "mesh.rules", self.rules, "must be 'ddp' or 'fsdp'")

    def shape(self, devices: int) -> tuple[int, int]:
        """(data, fsdp) for a number of devices; raises `UserError` when they do not fit."""
        known = self.fsdp if self.data == -1 else self.data
        if -1 in (self.data, self.fsdp):
            require(devices % known == 0, "mesh", f"{self.data} x {self.fsdp}", f"{devices} devices do not divide")
            return (devices // known, known) if self.data == -1 else (known, devices // known)
        product = self.data * self.fsdp
        require(product == devices, "mesh", f"{self.data} x {self.fsdp}", f"must use all {devices} devices")
        return self.data, self.fsdp

    def make(self, devices: Sequence[Any] | None = None) -> Mesh:
        """A mesh with axes `data` and `fsdp` over `devices` (all of them when None).

        The axes are of type Auto: XLA's partitioner places what is not constrained. Under the default (Explicit)
        Linen's logical sharding and plain products of sharded arrays raise.
        """
        devices = list(jax.devices() if devices is None else devices)
        axis_types = (AxisType.Auto, AxisType.Auto)
        return jax.make_mesh(self.shape(len(devices)), (DATA_AXIS, FSDP_AXIS), axis_types=axis_types, devices=devices)

    def plan(self, devices: int) -> AbstractMesh:
        """The mesh that `make` gives on a machine with this many devices, none of which needs to be here."""
        return AbstractMesh(self.shape(devices), (DATA_AXIS, FSDP_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))
