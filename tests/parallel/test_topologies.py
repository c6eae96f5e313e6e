"""Slices that are not here."""

import importlib.util
import sys

import pytest

from slm_jax.core.errors import UserError
from slm_jax.parallel.chips import chip_of
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.topologies import make_topology, parse_topology

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed, which compiles for TPUs"
)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "chips", "devices"),
    [("v4:2x2x1", 4, 4), ("v5e:1x1", 1, 1), ("v5e:2x2", 4, 4), ("v5p:4x4x4", 64, 64), ("tpu7x:2x2x1", 4, 8)],
)
def test_devices_of_a_slice(name, chips, devices):
    made = make_topology(name)
    assert (made.chips, len(made.devices), made.name) == (chips, devices, name)
    assert made.devices[0].platform == "tpu"
    assert chip_of(made.devices[0]) is made.chip


@needs_libtpu
def test_several_slices_make_a_mesh_of_slices():
    made = make_topology("v5e:2x2", slices=2)
    mesh = MeshConfig(slices=2).make(made.devices)
    assert mesh.shape["slice"] == 2
    assert {device.slice_index for device in mesh.devices[0].flat} == {0}


@needs_libtpu
def test_a_shape_that_no_slice_has_names_one_near_it():
    with pytest.raises(UserError, match=r"'v5p:3x3x3': libtpu knows no such slice .*v5p:4x4x4"):
        make_topology("v5p:3x3x3")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e", r"must be CHIP:SHAPE such as v5e:16x16"),
        ("v5:2x2", r"did you mean 'v5[ep]'\?"),
        ("v5p:4x4", r"a slice of v5p has 3 axes \(did you mean 'v5p:4x4x1'\?\)"),
        ("v5e:2x2x2", r"a slice of v5e has 2 axes \(did you mean 'v5e:2x2'\?\)"),
        ("h100:2x2", r"CHIP of v4, v5e, v5p, v6e, tpu7x"),
    ],
)
def test_a_wrong_name_shows_the_right_form(name, told):
    with pytest.raises(UserError, match=told):
        parse_topology(name)


@needs_libtpu
def test_a_slice_is_no_larger_than_its_pod():
    with pytest.raises(UserError, match="at most 256 chips"):
        make_topology("v5e:32x32")


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
        make_topology("v5e:2x2")
