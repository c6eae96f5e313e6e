"""Checkpoints from before a state held all collections: optimizers then saw the tree of `params` alone."""

from collections.abc import Sequence
from typing import Any

import jax

from slm_jax.core.trees import partition
from slm_jax.training.state import COLLECTIONS, PARAMS, TrainState
from slm_jax.training.step import Player

FORMAT = 2
"""Of the trees of a checkpoint, in its JSON under `format`; the first form has no such entry."""
LATER_META = ("tokens",)
"""Entries that a stage's own `meta` got later: a checkpoint that lacks one says nothing about it."""


def is_old(meta: dict[str, Any]) -> bool:
    """Was a checkpoint, of which this is the JSON, written in the first form?"""
    return meta.get("format", 1) < FORMAT


def with_later_meta(stored: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says must agree, with the entries that its time did not know yet as they are now."""
    later = {name: mine[name] for name in LATER_META if name in mine and name not in stored}
    return {**stored, **later}


def old_trees(trees: dict[str, Any], players: Sequence[Player], total_steps: int) -> dict[str, Any]:
    """The items that the first form would have, with the leaves of `trees` (those of an abstract state of today)."""
    train, params = trees["train"], trees[PARAMS]
    opt = {p.name: old_optimizer(p, total_steps, params, train["opt"][p.name]) for p in players}
    old = {name: tree for name, tree in trees.items() if name != COLLECTIONS}
    return {**old, "train": {**train, "opt": opt, "mutable": trees.get(COLLECTIONS)}}


def old_optimizer(player: Player, total_steps: int, params: Any, opt: Any) -> Any:
    """The player's optimizer state over bare `params`: the leaves are those of today, in the same order."""

    def init(params: Any) -> Any:
        owned = partition(params, lambda path: player.owns(f"{PARAMS}/{path}"))[0]
        return player.transformation(total_steps).init(owned)

    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(init, params)), jax.tree.leaves(opt))


def renewed(trees: dict[str, Any], like: TrainState) -> TrainState:
    """The state in the items of an old checkpoint, of the structure of `like`."""
    train = dict(trees["train"])
    mutable = train.pop("mutable")
    train["opt"] = jax.tree.unflatten(jax.tree.structure(like.opt), jax.tree.leaves(train["opt"]))
    found = {**trees, "train": train}
    return TrainState.from_trees(found if mutable is None else {**found, COLLECTIONS: mutable})
