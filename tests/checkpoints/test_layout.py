"""Trees on disk are nested dicts, whatever classes they had."""

import jax
import jax.numpy as jnp
import optax
import pytest

from slm_jax.checkpoints.layout import check_same, describe, nested, rebuilt
from slm_jax.core.errors import UserError

PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "gone": None}, "list": [jnp.zeros(1), jnp.ones(2)]}


def test_a_tree_comes_back_from_nested_dicts_with_its_classes():
    state = optax.adam(1e-3).init(PARAMS)
    flat = nested(state)
    assert all(isinstance(key, str) for key in flat)
    back = rebuilt(flat, state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert all(a is b for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True))


def test_differences_are_listed():
    stored = describe(PARAMS)
    assert stored["a/kernel"] == [[2, 3], "float32"]
    check_same("params", stored, describe(PARAMS))
    other = {"a": {"kernel": jnp.ones((2, 4))}, "list": PARAMS["list"]}
    with pytest.raises(UserError, match=r"a/kernel: \[\[2, 3\], 'float32'\] -> \[\[2, 4\], 'float32'\]"):
        check_same("params", stored, describe(other))
    with pytest.raises(UserError, match=r"list/1: .* -> \(absent\)"):
        check_same("params", stored, describe({"a": PARAMS["a"], "list": PARAMS["list"][:1]}))
