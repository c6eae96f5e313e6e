"""Mesh shapes."""

import jax
import pytest
from jax.sharding import AxisType
from jaxtyping import TypeCheckError

from slm_jax.core.errors import UserError
from slm_jax.parallel.mesh import MeshConfig


@pytest.mark.parametrize(
    "config, shape",
    [
        (MeshConfig(), (8, 1)),
        (MeshConfig(fsdp=4), (2, 4)),
        (MeshConfig(data=1, fsdp=-1), (1, 8)),
        (MeshConfig(data=4, fsdp=2), (4, 2)),
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
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)
    assert mesh.size == jax.device_count()
