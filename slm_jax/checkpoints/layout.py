"""Trees as nested dicts of arrays: what is on disk does not depend on the classes of the program that wrote it."""

from typing import Any

import jax

from slm_jax.core.errors import UserError
from slm_jax.core.trees import flatten_by_path


def nested(tree: Any) -> dict[str, Any]:
    """Nested dicts of the leaves of `tree` by path; parts without leaves (None, empty states) vanish."""
    result: dict[str, Any] = {}
    for path, leaf in flatten_by_path(tree).items():
        *parents, name = path.split("/")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = leaf
    return result


def rebuilt(values: Any, template: Any) -> Any:
    """A tree like `template` with the leaves of the nested dicts `values`."""
    found = flatten_by_path(values)
    return jax.tree.unflatten(jax.tree.structure(template), [found[path] for path in flatten_by_path(template)])


def describe(tree: Any) -> dict[str, list]:
    """Path -> [shape, dtype], as JSON."""
    return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in flatten_by_path(tree).items()}


def check_same(name: str, stored: dict[str, list], wanted: dict[str, list]) -> None:
    """Raise `UserError` that lists where a stored tree and the program's tree differ."""
    if stored == wanted:
        return
    paths = sorted(path for path in stored.keys() | wanted.keys() if stored.get(path) != wanted.get(path))
    lines = [f"{path}: {stored.get(path, '(absent)')} -> {wanted.get(path, '(absent)')}" for path in paths]
    more = f" and {len(lines) - 8} more" if len(lines) > 8 else ""
    raise UserError(
        f"checkpoint item {name!r} holds other arrays than the program (stored -> program): "
        + "; ".join(lines[:8])
        + more
    )
