"""Tables: which dimension of a weight is sharded."""

import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from slm_jax.core.errors import UserError
from slm_jax.parallel.rules import AXES, LOGICAL_AXES, RULES, spec_for

MESH = AbstractMesh((2, 4), ("data", "fsdp"))


@pytest.mark.parametrize(
    "names, shape, spec",
    [
        (("embed", "mlp"), (8, 16), ("fsdp", None)),
        (("mlp", "embed"), (16, 8), (None, "fsdp")),
        (("layers", "embed", "heads", "head"), (12, 8, 4, 2), (None, "fsdp", None, None)),
        (("embed", "mlp"), (6, 16), (None, "fsdp")),  # 6 does not divide by 4, so the next of the table is taken
        (("vocab", "embed"), (50_257, 8), (None, "fsdp")),
        (("embed", "mlp"), (6, 6), (None, None)),
        (("norm",), (8,), (None,)),
        (("kernel", "conv_in", "conv_out"), (4, 8, 8), (None, None, "fsdp")),
        ((None, "codebook"), (3, 8), (None, "fsdp")),
    ],
)
def test_fsdp_shards_one_dimension_where_it_divides(names, shape, spec):
    assert spec_for(names, shape, MESH, RULES["fsdp"]) == PartitionSpec(*spec)


def test_ddp_replicates_everything():
    assert spec_for(("embed", "mlp"), (8, 16), MESH, RULES["ddp"]) == PartitionSpec(None, None)


@pytest.mark.parametrize(
    "names, shape, spec",
    [
        (("embed", "mlp"), (8, 16), ("fsdp", "tensor")),
        (("heads", "head", "embed"), (4, 2, 8), ("tensor", None, "fsdp")),
        (("embed", "kv_heads", "head"), (8, 3, 2), ("fsdp", None, None)),  # 3 key heads do not divide by 2
        (("vocab", "embed"), (50, 8), ("tensor", "fsdp")),
        (("mlp",), (8,), ("tensor",)),  # one dimension lies on one axis
        (("kernel", "conv_in", "conv_out"), (4, 8, 8), (None, None, "fsdp")),
    ],
)
def test_both_tables_share_a_weight(names, shape, spec):
    both = AbstractMesh((1, 1, 4, 1, 2), AXES)
    assert spec_for(names, shape, both, RULES["fsdp+tensor"]) == PartitionSpec(*spec)


def test_an_unknown_axis_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'embd' is unknown \(did you mean 'embed'\?\)"):
        spec_for(("embd",), (8,), MESH, RULES["ddp"])


def test_the_tables_speak_of_known_axes():
    assert {name for rules in RULES.values() for name, _ in rules} <= set(LOGICAL_AXES)
