"""Arrays that are read where they are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.lazy import LazyArray, lazy, load_leaf, load_part, part_hash
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.checkpoints.model_folder import open_params
from slm_jax.checkpoints.streamed import StreamedArray

STACK = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


class Counting:
    """A part that notes which entries are read."""

    def __init__(self) -> None:
        self.read: list[int | None] = []

    def __call__(self, entry: int | None) -> np.ndarray:
        self.read.append(entry)
        return STACK if entry is None else STACK[entry]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One leaf in layers, one in one piece, one number."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("stored"))
    layers = StreamedArray(STACK.shape, STACK.dtype, lambda: iter(enumerate(STACK)), layered=True)
    whole = StreamedArray(STACK.shape, STACK.dtype, lambda: iter([(None, STACK)]))
    number = StreamedArray((), STACK.dtype, lambda: iter([(None, np.float32(2.5))]))
    checkpoints.save_streamed(1, {"params": {"layers": layers, "whole": whole, "number": number}}, {})
    return open_params(checkpoints.folder, "params")


@pytest.mark.parametrize("name", ["layers", "whole"])
def test_a_cut_of_a_stored_leaf_is_that_of_the_array(stored, name):
    leaf = lazy(stored[name], jnp.bfloat16)
    assert leaf.layered == (name == "layers")
    read = leaf.reader()
    for index in ((slice(1, 3), slice(0, 2), slice(3, None)), (slice(None), slice(None), slice(5, 6))):
        np.testing.assert_array_equal(read(index), STACK[index].astype(jnp.bfloat16))
    np.testing.assert_array_equal(np.asarray(leaf), STACK.astype(jnp.bfloat16))


@pytest.mark.parametrize("most", [0, 2**20])
@pytest.mark.parametrize("name", ["layers", "whole"])
def test_layer_by_layer_or_at_once_gives_the_same_array(stored, name, most):
    found = load_leaf(stored[name], HERE, jnp.float16, most)
    assert found.dtype == jnp.float16
    np.testing.assert_array_equal(found, STACK.astype(np.float16))


def test_a_layer_is_read_once_and_only_when_it_is_needed():
    part = Counting()
    leaf = LazyArray(STACK.shape, STACK.dtype, part, layered=True)
    np.testing.assert_array_equal(leaf[slice(1, 2), slice(None), slice(2)], STACK[1:2, :, :2])
    assert part.read == [1]
    load_leaf(leaf, HERE, most=0)
    assert part.read == [1, 0, 1, 2]
    part_hash({"leaf": leaf})
    assert part.read == [1, *[0, 1, 2] * 2]


def test_the_hash_is_that_of_the_values_in_any_form(stored):
    known = part_hash({"layers": STACK, "whole": STACK, "number": np.float32(2.5)})
    assert part_hash(stored) == known
    assert part_hash(jax.tree.map(lambda leaf: lazy(leaf, jnp.bfloat16), stored)) == known
    assert part_hash({**stored, "number": np.float32(2.0)}) != known
    assert part_hash({**stored, "other": STACK}) != known
    assert part_hash({"layers": STACK.reshape(4, 3, 6), "whole": STACK, "number": np.float32(2.5)}) != known


def test_a_tree_of_all_kinds_of_leaves_is_laid_out(stored):
    tree = {"lazy": stored["layers"], "number": stored["number"], "array": STACK, "placed": jnp.ones(3)}
    found = load_part(tree, HERE)
    assert all(isinstance(leaf, jax.Array) for leaf in found.values())
    np.testing.assert_array_equal(found["lazy"], found["array"])
    assert float(found["number"]) == 2.5
