"""Tables that say on which mesh axis a logical axis of a weight lies."""

from collections.abc import Sequence

from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from slm_jax.core.errors import UserError, nearest

AXES = ("slice", "data", "fsdp", "sequence", "tensor")
"""Every axis of a mesh, outermost first."""
ROW_AXES = ("slice", "data", "fsdp")
"""The axes over which the rows of a batch are spread."""

LOGICAL_AXES = (
    "layers",
    "embed",
    "mlp",
    "heads",
    "kv_heads",
    "head",
    "vocab",
    "conv_in",
    "conv_out",
    "kernel",
    "codebook",
    "norm",
)
"""Every name that a weight may carry; None stands for an axis that is never sharded."""

Rules = tuple[tuple[str, str], ...]

# Order is priority: a mesh axis shards one dimension of a weight, the first of the table that it divides. `layers` is
# absent since a scan slices it, `norm` and `kernel` since they are too small to be worth a gather.
_FSDP_ORDER = ("embed", "mlp", "vocab", "heads", "kv_heads", "conv_out", "conv_in", "codebook", "head")

# What a layer makes many of is shared out (heads, hidden channels, words), so that its first product needs nothing from
# the other devices and its second ends in one sum over them (Shoeybi et al. 2019).
_TENSOR_ORDER = ("heads", "kv_heads", "mlp", "vocab")

_FSDP: Rules = tuple((name, "fsdp") for name in _FSDP_ORDER)
_TENSOR: Rules = tuple((name, "tensor") for name in _TENSOR_ORDER)

RULES: dict[str, Rules] = {"ddp": (), "fsdp": _FSDP, "tensor": _TENSOR, "fsdp+tensor": _TENSOR + _FSDP}


def spec_for(
    names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh, rules: Rules
) -> PartitionSpec:
    """The partition of one weight; a dimension that the mesh axis does not divide stays replicated.

    Raises `UserError` for a logical axis that is not in `LOGICAL_AXES`.
    """
    for name in names:
        if name is not None and name not in LOGICAL_AXES:
            raise UserError(f"logical axis {name!r} is unknown{nearest(name, LOGICAL_AXES)}; one of {LOGICAL_AXES}")
    placed: list[str | None] = [None] * len(shape)
    for name, mesh_axis in rules:
        if name not in names or mesh_axis in placed:
            continue
        dimension = list(names).index(name)
        if placed[dimension] is None and shape[dimension] % mesh.shape[mesh_axis] == 0:
            placed[dimension] = mesh_axis
    return PartitionSpec(*placed)
