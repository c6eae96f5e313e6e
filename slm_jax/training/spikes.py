"""A policy for loss spikes: a batch far above the recent ones is left out, and many in a row stop the run.

What it remembers lives in the training state, so that a run which is resumed leaves out the same batches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.config import Config
from slm_jax.core.errors import require

MEASURES = ("loss", "grad_norm")
LEAST_MARGIN = 0.01
"""Share of the median that a value must lie above it, however little the recent ones differ: rounding is no spike."""
NORMAL = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""


class SpikeConfig(Config):
    """Leaves out a batch one of whose `watch` lies more than `sigmas` standard deviations above what is usual.

    What is usual is the median of the last `window` batches that were taken, and the deviation that of a normal
    distribution with their median absolute deviation, so that a spike that got in hardly moves either. Before there
    are `least` batches nothing is left out. A batch that is left out changes nothing but the number of the step.
    `stop_after` of them in a row stop the run.
    """

    sigmas: float = 6.0
    window: int = 128
    least: int = 32
    watch: tuple[str, ...] = ("loss",)
    stop_after: int = 8

    def __post_init__(self) -> None:
        require(self.sigmas > 0, "spike.sigmas", self.sigmas, "must be above 0")
        require(self.window >= 2, "spike.window", self.window, "must be at least 2")
        require(2 <= self.least <= self.window, "spike.least", self.least, f"must lie in 2..window ({self.window})")
        known = bool(self.watch) and all(name in MEASURES for name in self.watch)
        require(known, "spike.watch", self.watch, f"must name one or more of {MEASURES}")
        require(self.stop_after >= 1, "spike.stop_after", self.stop_after, "must be at least 1")


class Verdict(NamedTuple):
    """Whether a step was left out, how many in a row and in all were, and the limits its values were held to."""

    left_out: Bool[Array, ""]
    in_a_row: Int[Array, ""]
    in_all: Int[Array, ""]
    limits: dict[str, Float[Array, ""]]


def nothing_seen(config: SpikeConfig, players: list[str]) -> dict[str, Any]:
    """The memory of a run that begins: the last values of each player, as a ring, and the counts."""
    # Every array is one of its own: the step donates them all.
    rings = {
        player: {name: jnp.zeros((config.window,), jnp.float32) for name in config.watch}
        | {"taken": jnp.zeros((), jnp.int32)}
        for player in players
    }
    return {"in_a_row": jnp.zeros((), jnp.int32), "in_all": jnp.zeros((), jnp.int32), "players": rings}


def judge(
    config: SpikeConfig, memory: dict[str, Any], values: dict[str, dict[str, jax.Array]], finite: jax.Array
) -> tuple[Verdict, dict[str, Any]]:
    """Hold the values (by player and measure) of one step to what came before; the verdict and the new memory.

    A step that is not finite is none of this policy's affair and leaves the memory as it is.
    """
    limits = {
        f"{player}/{name}": limit(config, memory["players"][player], name) for player in values for name in config.watch
    }
    spikes = [values[player][name] > limits[f"{player}/{name}"] for player in values for name in config.watch]
    left_out = finite & jnp.any(jnp.stack(spikes))
    taken = finite & ~left_out
    rings = {player: _remember(config, memory["players"][player], own, taken) for player, own in values.items()}
    in_a_row = jnp.where(left_out, memory["in_a_row"] + 1, jnp.where(taken, 0, memory["in_a_row"]))
    in_all = memory["in_all"] + left_out.astype(jnp.int32)
    new = {"in_a_row": in_a_row, "in_all": in_all, "players": memory["players"] | rings}
    return Verdict(left_out, in_a_row, in_all, limits), new


def limit(config: SpikeConfig, ring: dict[str, jax.Array], name: str) -> Float[Array, ""]:
    """The largest value that is no spike; infinite as long as too few values are known."""
    known = jnp.where(jnp.arange(config.window) < ring["taken"], ring[name], jnp.nan)
    usual = jnp.nanmedian(known)
    deviation = NORMAL * jnp.nanmedian(jnp.abs(known - usual))
    margin = jnp.maximum(config.sigmas * deviation, LEAST_MARGIN * jnp.abs(usual))
    return jnp.where(ring["taken"] >= config.least, usual + margin, jnp.inf)


def _remember(
    config: SpikeConfig, ring: dict[str, jax.Array], values: dict[str, jax.Array], taken: jax.Array
) -> dict[str, jax.Array]:
    place = ring["taken"] % config.window
    new = {name: ring[name].at[place].set(values[name]) for name in config.watch}
    new["taken"] = ring["taken"] + 1
    return jax.tree.map(lambda after, before: jnp.where(taken, after, before), new, ring)
