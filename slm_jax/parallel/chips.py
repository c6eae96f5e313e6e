"""What accelerators can do at most: the ceilings that plans and MFU are measured against.

Sources. TPU: the pages "TPU v4", "v5e", "v5p", "v6e" and "TPU7x (Ironwood)" of the Cloud TPU documentation
(docs.cloud.google.com/tpu/docs/v5p and its neighbours, 2026): dense bfloat16 peak, memory, its bandwidth, and
interconnect, whose bidirectional figure is halved here (slices of whole 4x4x4 cubes are tori, smaller ones are open);
v4's six links of 50 GB/s: Jouppi et al. 2023, "TPU v4: An Optically Reconfigurable Supercomputer"; v5p has 96 GiB, of
which the documentation counts 95; v5e's share of the data-centre network is that of its pod, 6.4 Tbit/s, over 256
chips. `usable_bytes` is what the TPU compiler (libtpu 0.0.42.1) calls available when it refuses a program. NVIDIA: the
data sheets of H100 SXM, H200 SXM and A100 SXM; peaks are without sparsity.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Ceilings of one chip; FLOP/s are of bfloat16 products summed in float32.

    `ici_bytes_per_s`: what all `links` of a chip together carry in one direction. `dcn_bytes_per_s`: its share of the
    network between slices, one direction; None where it is not published. `devices`: how many devices JAX shows for a
    chip (the two cores of v4 and v5p act as one, those of TPU7x as two). `usable_bytes`: memory that the compiler lets
    one device's program have. `torus`: along an axis of a multiple of so many chips the links close a ring. `kinds`:
    beginnings of `device.device_kind`.
    """

    name: str
    kinds: tuple[str, ...]
    peak_bf16_flops: float
    hbm_bytes: int
    hbm_bytes_per_s: float
    ici_bytes_per_s: float
    links: int = 1
    torus: int = 1
    dcn_bytes_per_s: float | None = None
    devices: int = 1
    usable_bytes: int = 0

    @property
    def device_flops(self) -> float:
        """Peak of one JAX device."""
        return self.peak_bf16_flops / self.devices

    @property
    def device_hbm_bytes_per_s(self) -> float:
        """Memory bandwidth of one JAX device."""
        return self.hbm_bytes_per_s / self.devices

    @property
    def device_memory(self) -> int:
        """Bytes that a program on one JAX device may use."""
        return self.usable_bytes or self.hbm_bytes // self.devices

    def ring_bytes_per_s(self, shape: Sequence[int]) -> float:
        """What the worst placed chip of a slice of `shape` chips takes in, bytes/s, when all its links are busy.

        An axis that closes a ring feeds a chip from both sides; the chips at the ends of an open one have one
        neighbour on it; an axis of one chip has no links. With six links, rings are closed between whole cubes only.
        """
        if self.links == 1:
            return self.ici_bytes_per_s
        each = self.ici_bytes_per_s / self.links
        rings = [size % self.torus == 0 for size in shape]
        rings = [all(rings)] * len(rings) if self.links == 6 else rings
        return each * sum(0 if size == 1 else 2 if ring else 1 for size, ring in zip(shape, rings, strict=True))


_TPU = (
    Chip(
        name="v4",
        kinds=("TPU v4",),
        peak_bf16_flops=275e12,
        hbm_bytes=32 * GIB,
        hbm_bytes_per_s=1.2e12,
        ici_bytes_per_s=300e9,
        links=6,
        torus=4,
        usable_bytes=int(30.75 * GIB),
    ),
    Chip(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        peak_bf16_flops=197e12,
        hbm_bytes=16 * GIB,
        hbm_bytes_per_s=819e9,
        ici_bytes_per_s=200e9,
        links=4,
        torus=16,
        dcn_bytes_per_s=3.125e9,
        usable_bytes=int(15.75 * GIB),
    ),
    Chip(
        name="v5p",
        kinds=("TPU v5p", "TPU v5"),
        peak_bf16_flops=459e12,
        hbm_bytes=96 * GIB,
        hbm_bytes_per_s=2.765e12,
        ici_bytes_per_s=600e9,
        links=6,
        torus=4,
        dcn_bytes_per_s=6.25e9,
        usable_bytes=int(95.74 * GIB),
    ),
    Chip(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        peak_bf16_flops=918e12,
        hbm_bytes=32 * GIB,
        hbm_bytes_per_s=1.638e12,
        ici_bytes_per_s=400e9,
        links=4,
        torus=16,
        dcn_bytes_per_s=12.5e9,
        usable_bytes=int(31.25 * GIB),
    ),
    Chip(
        name="tpu7x",
        kinds=("TPU7x", "TPU v7"),
        peak_bf16_flops=2307e12,
        hbm_bytes=192 * GIB,
        hbm_bytes_per_s=7.38e12,
        ici_bytes_per_s=600e9,
        links=6,
        torus=4,
        dcn_bytes_per_s=12.5e9,
        devices=2,
        usable_bytes=int(94.75 * GIB),
    ),
)
_GPU = (
    Chip(
        name="h100",
        kinds=("NVIDIA H100 80GB HBM3",),
        peak_bf16_flops=989.4e12,
        hbm_bytes=80 * 10**9,
        hbm_bytes_per_s=3.35e12,
        ici_bytes_per_s=450e9,
    ),
    Chip(
        name="h200",
        kinds=("NVIDIA H200",),
        peak_bf16_flops=989.4e12,
        hbm_bytes=141 * 10**9,
        hbm_bytes_per_s=4.8e12,
        ici_bytes_per_s=450e9,
    ),
    Chip(
        name="a100-80",
        kinds=("NVIDIA A100-SXM4-80GB",),
        peak_bf16_flops=312e12,
        hbm_bytes=80 * 10**9,
        hbm_bytes_per_s=2.039e12,
        ici_bytes_per_s=300e9,
    ),
    Chip(
        name="a100-40",
        kinds=("NVIDIA A100-SXM4-40GB",),
        peak_bf16_flops=312e12,
        hbm_bytes=40 * 10**9,
        hbm_bytes_per_s=1.555e12,
        ici_bytes_per_s=300e9,
    ),
)
CHIPS: dict[str, Chip] = {chip.name: chip for chip in (*_TPU, *_GPU)}


def chip_of(device: Any) -> Chip | None:
    """The chip behind a JAX device, by its `device_kind`; None for one that is not in the table (a CPU)."""
    kind = device.device_kind
    matches = [(len(start), chip) for chip in CHIPS.values() for start in chip.kinds if kind.startswith(start)]
    return max(matches, key=lambda match: match[0])[1] if matches else None
