"""A step of two terms that count different things, and of statistics of a codebook, for one batch cut in many ways."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.contracts import Loss, Term
from slm_jax.core.trees import flatten_by_path
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.state import abstract_state, new_state
from slm_jax.training.step import Player, Statistics, make_step, optimizer_init

ROWS, FRAMES, WIDTH, CODES, KINDS = 32, 6, 5, 7, 3
STEPS = 3


def initialise(key: jax.Array) -> dict[str, Any]:
    first, second, third = jax.random.split(key, 3)
    params = {"up": jax.random.normal(first, (WIDTH, WIDTH)), "kind": jax.random.normal(second, (WIDTH, KINDS))}
    averages = {"counts": jnp.ones(CODES), "codes": jax.random.normal(third, (CODES, WIDTH))}
    return {"params": params, "codebook": averages}


def objective(variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
    """How far real frames lie from their codes, per frame, and which kind a row is, per row that has a label."""
    params, codes = variables["params"], variables["codebook"]["codes"]
    hidden, mask = jnp.tanh(batch["x"] @ params["up"]), batch["mask"]
    apart = jnp.square(hidden[..., None, :] - codes).sum(-1)
    chosen = jax.nn.one_hot(apart.argmin(-1), CODES) * mask[..., None]
    logits = (hidden * mask[..., None]).sum(1) @ params["kind"]
    kinds = jnp.where(batch["labelled"], -jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch["kind"]], 0.0)
    terms = {
        "commitment": Term((apart.min(-1) * mask).sum(), mask.sum(), 0.25),
        "kind": Term(kinds.sum(), batch["labelled"].sum(), 3.0),
    }
    stats = {"counts": chosen.sum((0, 1)), "sums": jnp.einsum("btk,btd->kd", chosen, jax.lax.stop_gradient(hidden))}
    return Loss(terms, {}, stats)


def average(variables: Any, stats: Any) -> dict[str, Any]:
    """Codes as moving averages of what chose them (van den Oord et al. 2017, appendix A.1)."""
    old = variables["codebook"]
    counts = 0.9 * old["counts"] + 0.1 * stats["counts"]
    sums = 0.9 * old["codes"] * old["counts"][:, None] + 0.1 * stats["sums"]
    return {"codebook": {"counts": counts, "codes": sums / jnp.maximum(counts, 1e-5)[:, None]}}


PLAYER = Player(
    name="net",
    objective=objective,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.05, schedule="constant", clip=None),
    statistics=Statistics(collections=("codebook",), update=average),
)


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of very different lengths, few of them with a label: no cut has equal counts everywhere."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((ROWS, FRAMES, WIDTH)).astype(np.float32),
        "mask": np.arange(FRAMES) < rng.integers(1, FRAMES + 1, (ROWS, 1)),
        "kind": rng.integers(0, KINDS, ROWS).astype(np.int32),
        "labelled": rng.random(ROWS) < 0.3,
        "example": np.arange(ROWS, dtype=np.int64),
    }


def taken(devices: list[Any], accumulate: int, unroll: bool | None = None) -> dict[str, np.ndarray]:
    """Variables after the steps, and what was logged in each."""
    mesh, opt = MeshConfig().make(devices), optimizer_init([PLAYER], STEPS)
    _, shardings = abstract_state(initialise, opt, ema=None, mesh=mesh, rules="ddp")
    state = new_state(initialise, opt, ema=None, key=jax.random.key(0), shardings=shardings)
    step = make_step([PLAYER], STEPS, mesh=mesh, accumulate=accumulate, shardings=shardings, unroll=unroll)
    logged = {}
    for number in range(STEPS):
        state, output = step(state, put_batch(batch(number), mesh), None, ("net",))
        logged |= {f"{number}/{name}": np.asarray(total / count) for name, (total, count) in output.sums.items()}
    return {**{path: np.asarray(leaf) for path, leaf in flatten_by_path(state.variables).items()}, **logged}
