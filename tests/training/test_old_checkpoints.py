"""A checkpoint from before a state held all collections goes on to the same bytes."""

import jax

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.hosts import machine_shape
from tests.training.small_run import CONFIG, OPTIMIZER, digest, start

CONFIG = CONFIG.replace(steps=12, checkpoint_every_steps=6, evaluate_every=6)


def in_the_first_form(state):
    """What the code of that time saved: optimizer states over bare parameters, other collections under `train`."""
    made = OPTIMIZER.make(CONFIG.steps).init(state.params)
    opt = jax.tree.unflatten(jax.tree.structure(made), jax.tree.leaves(state.opt["net"]))
    mutable = {"averages": state.variables["averages"]}
    train = {"step": state.step, "opt": {"net": opt}, "mutable": mutable, "key": state.key}
    return {"params": state.params, "train": train, "ema": state.ema["params"]}


def first_meta():
    optimizer = {name: value for name, value in OPTIMIZER.to_json().items() if name != "groups"}
    players = {"net": {"optimizer": optimizer, "every": 1, "start": 0}}
    fixed = {"train": CONFIG.binding_json(), "players": players, "meta": {}}
    return {"fixed": fixed, "machine": {**machine_shape(), "mesh": CONFIG.mesh.to_json()}, "config": CONFIG.to_json()}


def test_a_checkpoint_of_the_first_form_goes_on_as_if_it_were_one_of_today(tmp_path):
    old = Checkpoints(tmp_path / "old" / "checkpoints")
    stored = []

    def evaluate(state, frozen):
        if int(state.step) == 6:
            trees = in_the_first_form(state)
            stored.extend(flatten_by_path(trees["train"]))
            old.save(6, trees, {"next": 6}, first_meta())
            old.close()
        return {}

    whole = start(tmp_path / "whole", CONFIG, evaluate=evaluate)
    assert "opt/net/1/mu/first/kernel" in stored, "as the code of that time named it"
    resumed = start(tmp_path / "old", CONFIG)
    assert digest(resumed.trees()) == digest(whole.trees())
    again = start(tmp_path / "old", CONFIG)  # from the checkpoint that the resumed run wrote
    assert digest(again.trees()) == digest(whole.trees())
