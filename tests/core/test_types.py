import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from slm_jax.core.types import Frames, Waveform


def make_frames():
    return Frames(jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool))


def test_types_are_pytrees_and_statics_are_structure():
    wave = Waveform(jnp.zeros((1, 8)), jnp.ones((1, 8), bool), rate_hz=8000)
    doubled = jax.jit(lambda w: jax.tree.map(lambda a: a, w))(wave)
    assert doubled.rate_hz == 8000
    assert len(jax.tree.leaves(wave)) == 2


def test_trees_of_specs_and_none_pass_the_constructor_by():
    specs = jax.tree.map(lambda _: PartitionSpec("data"), make_frames())
    assert specs.mask == PartitionSpec("data")
    empty = jax.tree.map(lambda _: None, make_frames())
    assert empty.values is None
    shapes = jax.eval_shape(lambda f: f, make_frames())
    assert shapes.values.shape == (2, 3, 4)


def test_leaf_names_are_field_names():
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(make_frames())
    ]
    assert paths == ["values", "mask"]


def test_fields_cannot_be_assigned():
    with pytest.raises(AttributeError):
        make_frames().mask = None
