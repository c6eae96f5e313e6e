"""What is trained may lie in any collection: it alone moves, is averaged, saved as an item of its own and taken out."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.checkpoints.manager import ARRAYS, Checkpoints
from slm_jax.core.contracts import Loss, Term
from slm_jax.core.trees import flatten_by_path, matching
from slm_jax.training.gradient_stage import restored_variables
from slm_jax.training.metrics import read_metrics
from slm_jax.training.optimizer import GroupConfig
from tests.training.small_run import CONFIG, OPTIMIZER, SmallNet, digest, initialise, player, start

CONFIG = CONFIG.replace(steps=8, checkpoint_every_steps=4, log_every=4, ema_decay=0.5)


def with_adapters(key):
    """The small net under a low-rank change of what it reads, in a collection of its own."""
    return {**initialise(key), "adapters": {"down": jnp.full((8, 1), 0.1), "up": jnp.zeros((1, 8))}}


def adapted(variables, batch, rng, frozen=None):
    adapters = variables["adapters"]
    read = batch["x"] + batch["x"] @ adapters["down"] @ adapters["up"]
    net = {name: variables[name] for name in ("params", "averages")}
    error = jnp.square(SmallNet().apply(net, read)[0] - batch["y"]) * batch["mask"]
    return Loss({"square": Term(error.sum(), batch["mask"].sum())}, {})


def adapter_player(**groups):
    groups = tuple(GroupConfig(name=name, match=match, learning_rate=1e-9) for name, match in groups.items())
    optimizer = OPTIMIZER.replace(groups=groups, weight_decay=0.0, warmup_steps=0)
    return player(objective=adapted, owns=matching("adapters/"), statistics=None, optimizer=optimizer)


def run(folder, **changes):
    return start(folder, CONFIG, initialise=with_adapters, **{"players": [adapter_player()], **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return folder, run(folder)


def test_only_the_adapters_move_and_the_base_has_no_moments(trained):
    state, fresh = trained[1], with_adapters_drawn()
    for path, leaf in flatten_by_path(state.variables).items():
        assert np.array_equal(leaf, fresh[path]) != path.startswith("adapters/"), path
    moments = {path for path, leaf in flatten_by_path(state.opt).items() if leaf.ndim > 1}
    assert moments == {f"net/1/{m}/adapters/{name}" for m in ("mu", "nu") for name in ("down", "up")}
    assert set(state.ema) == {"adapters"}


def with_adapters_drawn():
    import jax

    from slm_jax.parallel.sharding import unbox

    return flatten_by_path(unbox(with_adapters(jax.random.fold_in(jax.random.key(0), 0))))


def test_a_checkpoint_holds_every_collection_and_gives_the_slow_copies_back(trained):
    folder, state = trained
    saved = Checkpoints(folder / "checkpoints")
    assert set(saved.read_json(8, ARRAYS)) == {"params", "collections", "train", "ema_collections"}
    for slow, wanted in ((False, state.variables), (True, state.served)):
        found = restored_variables(folder / "checkpoints", slow=slow)
        assert digest(found) == digest(wanted)
    assert not np.array_equal(state.served["adapters"]["up"], state.variables["adapters"]["up"])


def test_a_run_of_adapters_goes_on_to_the_same_bytes(trained, tmp_path):
    run(tmp_path)
    newest = Checkpoints(tmp_path / "checkpoints").path(8)
    newest.rename(newest.with_name("set-aside"))
    assert digest(run(tmp_path).trees()) == digest(trained[1].trees())


def test_adapters_are_given_by_their_collection(tmp_path):
    given = {"adapters": {"up": np.full((1, 8), 0.5)}}
    state = run(tmp_path, start_from=given, players=[adapter_player(all="adapters/")])
    np.testing.assert_allclose(state.variables["adapters"]["up"], 0.5, atol=1e-6)
    np.testing.assert_allclose(state.ema["adapters"]["up"], 0.5, atol=1e-6)


def test_a_group_moves_at_its_own_rate_and_is_logged(tmp_path):
    state = run(tmp_path, players=[adapter_player(still="adapters/down")])
    np.testing.assert_allclose(state.variables["adapters"]["down"], 0.1, atol=1e-6)
    assert np.abs(state.variables["adapters"]["up"]).max() > 1e-3
    last = read_metrics(tmp_path)[-1]
    assert last["learning_rate/still"] == pytest.approx(1e-7 * last["learning_rate"])
