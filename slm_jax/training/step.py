"""One training step: several players, micro-batches, one division, a guard against NaN and against spikes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from slm_jax.core.contracts import Batch, Loss, Objective, Params
from slm_jax.core.errors import require
from slm_jax.core.trees import PathPredicate, flatten_by_path, merge, partition
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.sharding import batch_sharding, row_shards
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.spikes import MEASURES, SpikeConfig, Verdict, judge
from slm_jax.training.state import TrainState

Sums = dict[str, tuple[jax.Array, jax.Array]]


def everything(path: str) -> bool:
    """The predicate of a player that owns the whole tree."""
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """Who trains what: `objective` is differentiated with respect to the leaves that `owns` selects.

    A player moves in the steps `start, start + every, ...`. Players of a step run in their order, each on the
    parameters that the one before left.
    """

    name: str
    objective: Objective
    optimizer: OptimizerConfig
    owns: PathPredicate = everything
    every: int = 1
    start: int = 0

    def updates(self, total_steps: int) -> int:
        """How often the player moves in a run of `total_steps` steps."""
        return max(1, -(-(total_steps - self.start) // self.every))

    def moves_at(self, step: int) -> bool:
        """Does the player move in the step with this number (from 0)?"""
        return step >= self.start and (step - self.start) % self.every == 0

    def transformation(self, total_steps: int) -> optax.GradientTransformation:
        """The Optax transformation over the leaves the player owns."""
        return self.optimizer.make(self.updates(total_steps))


class StepOutput(NamedTuple):
    """What the host may look at later: (sum, count) pairs by name, and whether loss and gradients were finite.

    `verdict` is that of the policy for loss spikes, None without one.
    """

    sums: Sums
    finite: jax.Array
    verdict: Verdict | None = None


def optimizer_init(players: Sequence[Player], total_steps: int) -> Callable[[Params], dict[str, Any]]:
    """A function from parameters to the optimizer state of every player."""

    def init(params: Params) -> dict[str, Any]:
        return {p.name: p.transformation(total_steps).init(partition(params, p.owns)[0]) for p in players}

    return init


def check_players(players: Sequence[Player], params: Params) -> None:
    """Raise `UserError` for players without parameters, with equal names, or that own one leaf twice."""
    names = [player.name for player in players]
    require(len(set(names)) == len(names) > 0, "players", names, "needs at least one, with different names")
    owners: dict[str, str] = {}
    for player in players:
        require(player.every >= 1, f"player {player.name}.every", player.every, "must be at least 1")
        owned = flatten_by_path(partition(params, player.owns)[0])
        require(len(owned) > 0, f"player {player.name!r} owns", "no parameter", "its predicate must match some path")
        for leaf in owned:
            require(leaf not in owners, f"parameter {leaf!r}", [owners.get(leaf), player.name], "has two owners")
            owners[leaf] = player.name


def acting(players: Sequence[Player], step: int) -> tuple[str, ...]:
    """Names of the players that move in the step with this number (from 0)."""
    return tuple(player.name for player in players if player.moves_at(step))


def make_step(
    players: Sequence[Player],
    total_steps: int,
    *,
    mesh: Mesh,
    accumulate: int = 1,
    ema_decay: float | None = None,
    shardings: Any = None,
    unroll: bool | None = None,
    spike: SpikeConfig | None = None,
) -> Any:
    """A jitted function (state, batch, frozen, names) -> (state, StepOutput) that donates its state.

    `names`, static, are the players that move (see `acting`). Each player's gradient is the sum over all real tokens
    of the batch divided once by their number, however the batch is cut into `accumulate` micro-batches or spread over
    devices. When any loss or gradient is not finite, the step changes nothing but the step number; the same when
    `spike` calls it one, which the state remembers. `unroll` writes the micro-batches out instead of scanning over
    them; None does so on CPU.
    """
    # Convolutions inside a scan or a cond run 10 to 20 times slower on CPU than outside. So players rest by being left
    # out of the program, and micro-batches are written out there.
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    unroll = on_cpu if unroll is None else unroll

    @placed_on(mesh)
    def step(state: TrainState, batch: Batch, frozen: Any, names: tuple[str, ...]) -> tuple[TrainState, StepOutput]:
        key = jax.random.fold_in(state.key, state.step)
        micro = split_rows(batch, accumulate, mesh)
        sums: Sums = {}
        seen: dict[str, dict[str, jax.Array]] = {}
        new, finite = state, jnp.array(True)
        alone = on_cpu and len(names) == 1 and spike is None  # nothing but its own figures decides: a branch will do
        for index, player in enumerate(players):
            if player.name not in names:
                continue
            rng = jax.random.fold_in(key, index)
            new, own, player_finite = _update(player, total_steps, new, micro, rng, frozen, unroll, alone)
            finite = finite & player_finite
            seen[player.name] = {name: own[name][0] / jnp.maximum(own[name][1], 1) for name in MEASURES}
            prefix = f"{player.name}/" if len(players) > 1 else ""
            sums |= {prefix + name: pair for name, pair in own.items()}
        if ema_decay is not None:
            new = dataclasses.replace(new, ema=_average(new.ema, new.params, ema_decay))
        verdict, taken = None, finite
        if spike is not None and seen:
            verdict, memory = judge(spike, state.spikes, seen, finite)
            new, taken = dataclasses.replace(new, spikes=memory), finite & ~verdict.left_out
        after, before = (_carried(each, besides=("params", "opt") if alone else ()) for each in (new, state))
        kept = jax.tree.map(lambda after, before: jnp.where(taken, after, before), after, before)
        new = dataclasses.replace(new, **kept, step=state.step + 1)
        return new, StepOutput(sums, finite, verdict)

    out = None if shardings is None else (shardings, None)
    return jax.jit(step, donate_argnums=0, static_argnums=3, out_shardings=out)


def split_rows(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """[B, ...] -> [parts, B / parts, ...]; micro-batch i takes rows i, i + parts, ... so that no row changes device."""
    rows = {value.shape[0] for value in jax.tree.leaves(batch)}
    need = parts * row_shards(mesh)
    rule = f"must divide by accumulate ({parts}) times the shares of rows ({row_shards(mesh)})"
    require(all(count % need == 0 for count in rows), "rows of a batch", sorted(rows), rule)
    place = batch_sharding(mesh)
    place = place.update(spec=jax.sharding.PartitionSpec(None, *place.spec))

    def split(value: jax.Array) -> jax.Array:
        cut = value.reshape(value.shape[0] // parts, parts, *value.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(cut, place)

    return jax.tree.map(split, batch)


def _carried(state: TrainState, besides: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(state, name) for name in ("params", "opt", "mutable", "ema") if name not in besides}


def _average(slow: Params, fast: Params, decay: float) -> Params:
    return jax.tree.map(lambda s, f: s * decay + f.astype(s.dtype) * (1 - decay), slow, fast)


def _update(
    player: Player,
    total_steps: int,
    state: TrainState,
    micro: Batch,
    rng: jax.Array,
    frozen: Any,
    unroll: bool,
    branch: bool,
) -> tuple[TrainState, Sums, jax.Array]:
    owned, others = partition(state.params, player.owns)
    grads, loss = _gradients(player.objective, owned, others, state.mutable, micro, rng, frozen, unroll)
    count = jnp.maximum(loss.count, 1).astype(jnp.float32)
    grads = jax.tree.map(lambda g: g / count.astype(g.dtype), grads)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss.total) & jnp.isfinite(norm)
    owned, opt = _moved(player.transformation(total_steps), owned, state.opt[player.name], grads, finite, branch)
    rate = player.optimizer.schedule_for(player.updates(total_steps))((state.step - player.start) // player.every)
    one = jnp.ones(())
    sums = {"loss": (loss.total, loss.count), **loss.metrics}
    sums |= {"grad_norm": (norm, one), "learning_rate": (jnp.asarray(rate, jnp.float32), one)}
    opts = state.opt | {player.name: opt}
    return dataclasses.replace(state, params=merge(owned, others), opt=opts, mutable=loss.state), sums, finite


def _moved(
    transformation: optax.GradientTransformation,
    owned: Params,
    opt: Any,
    grads: Params,
    finite: jax.Array,
    branch: bool,
) -> tuple[Params, Any]:
    """Weights and optimizer state after one update; with `branch` they stay as they are where `finite` is False.

    A branch suits the CPU, where XLA writes moments and weights in loops of their own: a choice made element by element
    has them read what was there before, which costs a copy of both moments. Accelerators do all in one pass.
    """

    def move() -> tuple[Params, Any]:
        updates, after = transformation.update(grads, opt, owned)
        return optax.apply_updates(owned, updates), after

    return jax.lax.cond(finite, move, lambda: (owned, opt)) if branch else move()


def _gradients(
    objective: Objective,
    owned: Params,
    others: Params,
    mutable: Any,
    micro: Batch,
    rng: jax.Array,
    frozen: Any,
    unroll: bool,
) -> tuple[Params, Loss]:
    """Gradients of the summed loss, and the summed loss itself, over the micro-batches [A, B / A, ...]."""

    def total(owned: Params, mutable: Any, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Loss]:
        loss = objective(merge(owned, others), mutable, batch, rng, frozen)
        return loss.total.astype(jnp.float32), loss._replace(state=mutable if loss.state is None else loss.state)

    def one(mutable: Any, part: tuple[Batch, jax.Array]) -> tuple[Params, Loss]:
        batch, index = part
        key = jax.random.fold_in(rng, index)
        (_, loss), grads = jax.value_and_grad(total, has_aux=True)(owned, mutable, batch, key)
        return grads, loss

    def pick(index: int) -> tuple[Batch, jax.Array]:
        return jax.tree.map(lambda value: value[index], micro), jnp.asarray(index, jnp.int32)

    def add(carry: tuple[Params, Loss], part: tuple[Batch, jax.Array]) -> tuple[tuple[Params, Loss], None]:
        grads, loss = one(carry[1].state, part)
        so_far = (carry[0], carry[1]._replace(state=None))
        summed = jax.tree.map(jnp.add, so_far, (grads, loss._replace(state=None)))
        return (summed[0], summed[1]._replace(state=loss.state)), None

    parts = jax.tree.leaves(micro)[0].shape[0]
    total_so_far = one(mutable, pick(0))
    if unroll or parts == 1:
        for index in range(1, parts):
            total_so_far, _ = add(total_so_far, pick(index))
        return total_so_far
    rest = jax.tree.map(lambda value: value[1:], micro)
    return jax.lax.scan(add, total_so_far, (rest, jnp.arange(1, parts)))[0]
