import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.trees import (
    count_bytes,
    count_parameters,
    flatten_by_path,
    joined,
    matching,
    merge,
    partition,
    without,
)

TREE = {"generator": {"a": jnp.ones((2, 3)), "b": [jnp.zeros(4), jnp.ones(1)]}, "critic": {"a": jnp.ones(5)}}


def test_names_and_counts():
    assert list(flatten_by_path(TREE)) == ["critic/a", "generator/a", "generator/b/0", "generator/b/1"]
    assert count_parameters(TREE) == 16
    assert count_bytes(jax.eval_shape(lambda: TREE)) == 64


def test_partition_and_merge_are_inverse_and_gradients_stay_inside():
    mine, rest = partition(TREE, matching("generator/"))
    assert count_parameters(mine) == 11
    assert count_parameters(rest) == 5
    jax.tree.map(np.testing.assert_array_equal, merge(mine, rest), TREE)

    def loss(trainable):
        whole = merge(trainable, rest)
        return (whole["generator"]["a"] * 2).sum() + whole["critic"]["a"].sum()

    gradient = jax.grad(loss)(mine)
    assert gradient["critic"]["a"] is None
    np.testing.assert_array_equal(gradient["generator"]["a"], 2 * np.ones((2, 3)))


def test_trees_are_laid_over_each_other_unless_they_meet():
    first, second = {"params": {"a": 1}, "frozen": {}}, {"params": {"b": {"c": 2}}}
    assert joined(first, second) == {"params": {"a": 1, "b": {"c": 2}}, "frozen": {}}
    assert joined() == {}
    with pytest.raises(ValueError, match="leaf at 'a'"):
        joined(first, {"params": {"a": 3}})


def test_what_lies_at_a_path_is_left_out_and_dicts_that_are_left_empty_with_it():
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert without(tree, "a/b/c") == {"a": {"d": 2}, "e": 3} == without(tree, "a/b")
    assert without(without(tree, "a/b"), "a/d") == {"e": 3}
    assert without(tree, "a/x/y") == without(tree, "x") == tree
