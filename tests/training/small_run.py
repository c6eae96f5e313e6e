"""A run that takes a second: regression by a small net with dropout and a running mean, over seeded batches.

As a program (`python small_run.py FOLDER`, repository root on the path) it is what the fault tests kill and restart.
"""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.contracts import Loss, Term
from slm_jax.core.trees import flatten_by_path
from slm_jax.training.loop import TrainConfig, train
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.step import Player, Statistics
from slm_jax.training.stops import Interrupted

ROWS, WIDTH, HIDDEN = 16, 8, 16
STEPS = 60


class SmallNet(nn.Module):
    """Two layers with dropout; the collection `averages` holds a running mean of the hidden values."""

    dropout: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> tuple[jax.Array, jax.Array]:
        init = nn.initializers.lecun_normal()
        first = nn.Dense(HIDDEN, kernel_init=nn.with_logical_partitioning(init, ("embed", "mlp")), name="first")
        second = nn.Dense(1, kernel_init=nn.with_logical_partitioning(init, ("mlp", None)), name="second")
        hidden = nn.gelu(first(x))
        self.variable("averages", "mean", jnp.zeros, (HIDDEN,))
        dropped = nn.Dropout(self.dropout, deterministic=deterministic)(hidden)
        return second(dropped)[:, 0], jax.lax.stop_gradient(hidden)


def initialise(key: jax.Array) -> dict[str, Any]:
    return SmallNet().init(key, jnp.zeros((1, WIDTH)))


def running_mean(variables: Any, stats: Any) -> dict[str, Any]:
    mean = 0.9 * variables["averages"]["mean"] + 0.1 * stats["hidden"] / stats["rows"]
    return {"averages": {"mean": mean}}


def objective(variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
    """Squared error over the rows whose mask is True; `frozen`, when given, is added to the guess."""
    guess, hidden = SmallNet().apply(variables, batch["x"], False, rngs={"dropout": rng})
    guess = guess if frozen is None else guess + frozen
    error = jnp.square(guess - batch["y"]) * batch["mask"]
    count = batch["mask"].sum()
    metrics = {"absolute_error": (jnp.sum(jnp.abs(guess - batch["y"]) * batch["mask"]), count)}
    return Loss({"square": Term(error.sum(), count)}, metrics, counted(hidden))


def plain_objective(variables: Any, batch: Any, rng: jax.Array, frozen: Any = None) -> Loss:
    """The same without dropout, so that rows may be cut in any way."""
    guess, hidden = SmallNet().apply(variables, batch["x"])
    error = jnp.square(guess - batch["y"]) * batch["mask"]
    return Loss({"square": Term(error.sum(), batch["mask"].sum())}, {}, counted(hidden))


def counted(hidden: jax.Array) -> dict[str, jax.Array]:
    return {"hidden": hidden.sum(0), "rows": jnp.array(float(len(hidden)))}


class SeededBatches:
    """Batch i is drawn from the seed i; `bad` names batches that hold a NaN, `delay_s` makes reading slow.

    Into the folder `resumed_in`, when there is one, goes the number of the batch that a restored run begins with.
    """

    resumed_in: Path | None = None

    def __init__(
        self, rows: int = ROWS, bad: tuple[int, ...] = (), delay_s: float = 0.0, host: int = 0, hosts: int = 1
    ):
        self.rows, self.bad, self.delay_s, self.next = rows, bad, delay_s, 0
        self.mine = slice(host * rows // hosts, (host + 1) * rows // hosts)

    def __iter__(self) -> "SeededBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        time.sleep(self.delay_s)
        rng = np.random.default_rng(self.next)
        x = rng.normal(size=(self.rows, WIDTH)).astype(np.float32)
        if self.next in self.bad:
            x[3, 2] = np.nan
        mask = rng.random(self.rows) < 0.7
        example = np.arange(self.rows, dtype=np.int64) + self.rows * self.next
        self.next += 1
        batch = {"x": x, "y": np.sin(x).sum(1), "mask": mask, "example": example}
        return {name: value[self.mine] for name, value in batch.items()}

    def close(self) -> None:
        self.resumed_in = None

    def get_state(self) -> dict[str, Any]:
        return {"next": self.next}

    def set_state(self, state: dict[str, Any]) -> None:
        self.next = state["next"]
        if self.resumed_in is not None:
            (self.resumed_in / "resumed").write_text(str(self.next))


OPTIMIZER = OptimizerConfig(learning_rate=1e-2, weight_decay=0.01, warmup_steps=5)
CONFIG = TrainConfig(steps=STEPS, ema_decay=0.9, log_every=5, checkpoint_every_steps=5, checkpoint_every_minutes=None)


def player(**changes: Any) -> Player:
    statistics = Statistics(collections=("averages",), update=running_mean)
    return Player(
        **{"name": "net", "objective": objective, "optimizer": OPTIMIZER, "statistics": statistics, **changes}
    )


def start(folder: Path, config: TrainConfig = CONFIG, **changes: Any) -> Any:
    """`train` with the parts of this module unless others are given."""
    parts = {"initialise": initialise, "players": [player()], "batches": SeededBatches(), "progress": False}
    return train(folder, config, **{**parts, **changes})


def digest(tree: Any) -> str:
    """SHA-256 of all arrays of a tree, names and bytes."""
    total = hashlib.sha256()
    for name, leaf in flatten_by_path(tree).items():
        leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        total.update(name.encode() + np.asarray(leaf).tobytes())
    return total.hexdigest()


def main(folder: Path) -> int:
    batches = SeededBatches(delay_s=0.02)
    batches.resumed_in = folder
    try:
        state = start(folder, batches=batches)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    (folder / "digest").write_text(digest(state.trees()))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
