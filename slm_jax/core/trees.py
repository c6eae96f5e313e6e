"""Trees by path: names, counts, partition and merge."""

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

PathPredicate = Callable[[str], bool]


def path_name(path: tuple) -> str:
    """`encoder/layers/0/kernel` for a key path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_by_path(tree: Any) -> dict[str, Any]:
    """Leaves by path name, in the order of the tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(path name, leaf)` over the leaves of `tree`."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def count_parameters(tree: Any) -> int:
    """Number of scalars in `tree`; leaves may be arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def count_bytes(tree: Any) -> int:
    """Bytes of the arrays in `tree`; leaves may be arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def joined(*trees: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts laid over each other; raises `ValueError` where two have something in the same place."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for tree in trees for name in tree):
        given = [tree[name] for tree in trees if name in tree]
        if len(given) > 1 and not all(isinstance(each, dict) for each in given):
            raise ValueError(f"two trees have a leaf at {name!r}")
        found[name] = joined(*given) if len(given) > 1 else given[0]
    return found


def together(variables: dict[str, Any], frozen: Any) -> dict[str, Any]:
    """All variables of a model whose frozen parts are kept apart, in `frozen["frozen"]`, under the same names."""
    return {**variables, "params": joined(variables["params"], (frozen or {}).get("frozen", {}))}


def without(tree: dict[str, Any], path: str) -> dict[str, Any]:
    """A nested dict without what lies at `a/b/c`, and without dicts that are left empty."""
    name, _, rest = path.partition("/")
    inner = without(tree[name], rest) if rest and name in tree else {}
    return {key: inner if key == name else value for key, value in tree.items() if key != name or inner}


def matching(pattern: str) -> PathPredicate:
    """A predicate: does the regular expression match at the start of the path?"""
    compiled = re.compile(pattern)
    return lambda path: compiled.match(path) is not None


def partition(tree: Any, predicate: PathPredicate) -> tuple[Any, Any]:
    """Two trees of the same shape as `tree`: leaves whose path satisfies `predicate`, and the others.

    A leaf that is not taken is None, which JAX reads as an empty subtree, so that gradients and optimizer states
    cover the taken leaves only. `merge` is the inverse.
    """
    taken = map_by_path(lambda path, leaf: leaf if predicate(path) else None, tree)
    rest = map_by_path(lambda path, leaf: None if predicate(path) else leaf, tree)
    return taken, rest


def merge(first: Any, second: Any) -> Any:
    """One tree out of the two that `partition` made."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def variables_of(variables: dict[str, Any], part: str) -> dict[str, Any]:
    """The variables of the sub-module `part`: its branch of every collection that has one."""
    return {collection: tree[part] for collection, tree in variables.items() if part in tree}
