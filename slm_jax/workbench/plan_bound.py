"""The roofline: how fast a step can be at best, and what holds it back."""

import dataclasses

from slm_jax.core.flops import Flops
from slm_jax.parallel.topologies import Topology
from slm_jax.workbench.hlo_traffic import Traffic


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds of one step if each resource were used to the full; they may overlap, so that the largest is the bound.

    `compute`: products at the chip's bfloat16 peak, recomputation counted. `memory`: bytes of main memory at its full
    bandwidth. `links`: exchanges within a slice over all links of the worst placed chip. `network`: those between
    slices.
    """

    compute: float
    memory: float
    links: float
    network: float

    @property
    def seconds(self) -> float:
        """No step is faster."""
        return max(self.compute, self.memory, self.links, self.network)

    @property
    def limit(self) -> str:
        """The resource that decides."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def bound_of(flops: Flops, traffic: Traffic, topology: Topology) -> Bound:
    """Of a step that does `flops` over all devices and moves `traffic` on each."""
    chip, devices = topology.chip, len(topology.devices)
    links, network = sum(traffic.links.values()), sum(traffic.network.values())
    each = (chip.dcn_bytes_per_s or 0.0) / chip.devices
    return Bound(
        compute=flops.total / (devices * chip.device_flops),
        memory=traffic.memory / chip.device_hbm_bytes_per_s,
        links=links / topology.ici_bytes_per_s if links else 0.0,
        network=network / each if network else 0.0,
    )


def mfu(flops: Flops, seconds: float, topology: Topology) -> float:
    """Share of the peak that the model's own operations take in a step of so many seconds."""
    return flops.model / (seconds * len(topology.devices) * topology.chip.device_flops)
