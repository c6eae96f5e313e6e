"""Mesh shapes."""

import jax
import pytest
from jax.sharding import AxisType
from jaxtyping import TypeCheckError

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig, slices_of
from slm_jax.parallel.rules import AXES


@pytest.mark.parametrize(
    "config, shape",
    [
        (MeshConfig(), (1, 8, 1, 1, 1)),
        (MeshConfig(fsdp=4), (1, 2, 4, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), (1, 1, 8, 1, 1)),
        (MeshConfig(data=4, fsdp=2), (1, 4, 2, 1, 1)),
        (MeshConfig(slices=2, sequence=2), (2, 2, 1, 2, 1)),
        (MeshConfig(data=1, fsdp=-1, tensor=4, rules="fsdp+tensor"), (1, 1, 2, 1, 4)),
    ],
)
def test_one_axis_may_take_what_is_left(config, shape):
    assert config.shape(8) == shape


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": -1, "fsdp": -1}, "only one of them may be -1"),
        ({"data": 0}, "mesh.data is 0"),
        ({"fsdp": -2}, "mesh.fsdp is -2"),
        ({"rules": "fdsp"}, "'fdsp'"),
        ({"sequence": 0}, "mesh.sequence is 0"),
        ({"tensor": 2, "rules": "fsdp"}, "mesh.tensor is 2: the rules 'fsdp' put nothing on this axis"),
    ],
)
def test_wrong_fields_are_named(changes, message):
    with pytest.raises((UserError, TypeCheckError), match=message):  # the tests' type check sees a Literal first
        MeshConfig(**changes)


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=2, fsdp=2)])
def test_devices_that_do_not_fit_are_refused(config):
    with pytest.raises(UserError, match="8 devices"):
        config.shape(8)


def test_the_axes_are_auto():
    mesh = MeshConfig().make()
    assert mesh.axis_names == AXES
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert mesh.size == jax.device_count()


class Device:
    """A device that says which slice it belongs to."""

    def __init__(self, number, of_slice):
        self.id, self.slice_index = number, of_slice


def test_devices_stay_with_their_slice():
    mixed = [Device(i, i % 2) for i in range(6)]
    assert [[d.id for d in group] for group in slices_of(mixed, 2)] == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(UserError, match=r"mesh.slices is 3: the devices form 2 slices"):
        slices_of(mixed, 3)
    alone = [Device(i, 0) for i in range(4)]
    assert [[d.id for d in group] for group in slices_of(alone, 2)] == [[0, 1], [2, 3]]
