"""One training step: several players, micro-batches, one division, a guard against NaN and against spikes."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from slm_jax.core.contracts import SHOWN, Batch, Loss, Objective, Term, Variables
from slm_jax.core.errors import require
from slm_jax.core.trees import PathPredicate, flatten_by_path, merge, partition
from slm_jax.parallel.placement import placed_on
from slm_jax.parallel.sharding import batch_sharding, row_shards
from slm_jax.training.accumulate import accumulated
from slm_jax.training.optimizer import OptimizerConfig
from slm_jax.training.spikes import MEASURES, SpikeConfig, Verdict, judge
from slm_jax.training.state import PARAMS, TrainState

Sums = dict[str, tuple[jax.Array, jax.Array]]
Shows = Callable[[Variables, Batch, jax.Array, Any], tuple[Any, Any]]
"""(variables, batch, key, frozen) -> (arrays that a gradient passes, anything else)."""


def everything(path: str) -> bool:
    """The predicate of a player that owns all of `params`, and of the other collections nothing."""
    return path.startswith(f"{PARAMS}/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Collections that are not moved by a gradient but counted, such as averages of codebooks.

    `update(variables, stats)` returns new trees for the `collections`, from the variables as the player found them and
    its objective's `Loss.stats`, summed over the whole batch.
    """

    collections: tuple[str, ...]
    update: Callable[[Variables, Any], dict[str, Any]]

    def __call__(self, variables: Variables, stats: Any) -> dict[str, Any]:
        """The new collections; raises `UserError` when they are not those that were announced."""
        made = self.update(variables, stats)
        require(set(made) == set(self.collections), "statistics", sorted(made), f"must be {self.collections}")
        return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """Who trains what: `objective` is differentiated with respect to the leaves that `owns` selects.

    `owns` sees paths that begin with the collection, such as `params/generator/kernel`. A leaf that nobody owns, and
    that lies in no collection of somebody's `statistics`, is constant. A player moves in the steps `start, start +
    every, ...`, in each of them with the probability `chance`, which the number of the step decides: a run that goes on
    moves as one that never stopped. Players of a step run in their order, each on the variables that the one before
    left.

    `shows`: what this player makes of a batch and others look at too, such as a generator's sound, as (arrays that a
    gradient passes, anything else). It is then made once: all objectives of the step find it as `shown` in the batch,
    and what they do without it they do where a batch is cut into micro-batches, or where this player rests.
    """

    name: str
    objective: Objective
    optimizer: OptimizerConfig
    owns: PathPredicate = everything
    every: int = 1
    start: int = 0
    chance: float = 1.0
    statistics: Statistics | None = None
    shows: Shows | None = None

    def updates(self, total_steps: int) -> int:
        """How often the player moves in a run of `total_steps` steps (with a `chance`: as often as may be expected)."""
        return max(1, math.ceil(-(-(total_steps - self.start) // self.every) * self.chance))

    def moves_at(self, step: int) -> bool:
        """Does the player move in the step with this number (from 0)?"""
        turn = step >= self.start and (step - self.start) % self.every == 0
        if not turn or self.chance >= 1.0:
            return turn
        return bool(np.random.default_rng([step, zlib.crc32(self.name.encode())]).random() < self.chance)

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


def optimizer_init(players: Sequence[Player], total_steps: int) -> Callable[[Variables], dict[str, Any]]:
    """A function from variables to the optimizer state of every player."""

    def init(variables: Variables) -> dict[str, Any]:
        return {p.name: p.transformation(total_steps).init(partition(variables, p.owns)[0]) for p in players}

    return init


def trained_leaves(players: Sequence[Player]) -> PathPredicate:
    """Does some player own the leaf with this path?"""
    return lambda path: any(player.owns(path) for player in players)


def check_players(players: Sequence[Player], variables: Variables) -> None:
    """Raise `UserError` for players without leaves, with equal names, a leaf that two change, or two that show."""
    names = [player.name for player in players]
    showing = [player.name for player in players if player.shows is not None]
    require(len(showing) <= 1, "players that show", showing, "one at most: the others look at it")
    require(len(set(names)) == len(names) > 0, "players", names, "needs at least one, with different names")
    owners: dict[str, str] = {}
    for player in players:
        require(player.every >= 1, f"player {player.name}.every", player.every, "must be at least 1")
        require(0 < player.chance <= 1, f"player {player.name}.chance", player.chance, "above 0, 1 at most")
        owned = list(flatten_by_path(partition(variables, player.owns)[0]))
        require(len(owned) > 0, f"player {player.name!r} owns", "no parameter", "its predicate must match some path")
        player.optimizer.check_groups(owned, player.name)
        for leaf in [*owned, *_counted(player, variables)]:
            require(leaf not in owners, f"leaf {leaf!r}", [owners.get(leaf), player.name], "has two owners")
            owners[leaf] = player.name


def _counted(player: Player, variables: Variables) -> list[str]:
    """Paths of the leaves that the player's statistics write."""
    collections = () if player.statistics is None else player.statistics.collections
    for name in collections:
        require(name in variables, f"player {player.name!r} statistics", name, f"the model has {sorted(variables)}")
    return list(flatten_by_path({name: variables[name] for name in collections}))


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

    `names`, static, are the players that move (see `acting`). Each player's gradient is that of its loss over the whole
    batch, every term a sum over what is real divided once by its number, however the batch is cut into `accumulate`
    micro-batches or spread over devices; statistics are applied once. When any loss, statistic or gradient is not
    finite, the step changes nothing but the step number; the same when `spike` calls it one, which the state remembers.
    `unroll` writes the micro-batches out instead of scanning over them; None does so on CPU.
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
        moving = [(player, jax.random.fold_in(key, i)) for i, player in enumerate(players) if player.name in names]
        shown = _shown(moving, state.variables, micro, frozen) if accumulate == 1 and len(moving) > 1 else None
        for player, rng in moving:
            new, own, player_finite = _update(player, total_steps, new, micro, rng, frozen, unroll, alone, shown)
            finite = finite & player_finite
            seen[player.name] = {name: own[name][0] / jnp.where(own[name][1] > 0, own[name][1], 1) for name in MEASURES}
            prefix = f"{player.name}/" if len(players) > 1 else ""
            sums |= {prefix + name: pair for name, pair in own.items()}
        if ema_decay is not None and new.ema is not None:
            new = dataclasses.replace(new, ema=_average(new.ema, new.variables, ema_decay))
        verdict, taken = None, finite
        if spike is not None and seen:
            verdict, memory = judge(spike, state.spikes, seen, finite)
            new, taken = dataclasses.replace(new, spikes=memory), finite & ~verdict.left_out
        after, before = (_carried(each, besides=("variables", "opt") if alone else ()) for each in (new, state))
        kept = jax.tree.map(partial(_chosen, taken), after, before)
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
    return {name: getattr(state, name) for name in ("variables", "opt", "ema") if name not in besides}


def _chosen(taken: jax.Array, after: jax.Array, before: jax.Array) -> jax.Array:
    return after if after is before else jnp.where(taken, after, before)


def _average(slow: Variables, variables: Variables, decay: float) -> Variables:
    def one(slow: jax.Array, fast: jax.Array) -> jax.Array:
        moves = jnp.issubdtype(slow.dtype, jnp.floating)
        return slow * decay + fast.astype(slow.dtype) * (1 - decay) if moves else fast

    return jax.tree.map(one, slow, {name: variables[name] for name in slow})


class Shown(NamedTuple):
    """What a player made of the only micro-batch; `back` takes a gradient by `made` to one by what the player owns."""

    player: str
    made: Any
    rest: Any
    back: Callable[[Any], tuple[Variables]]


def _shown(moving: Sequence[tuple[Player, jax.Array]], variables: Variables, micro: Batch, frozen: Any) -> Shown | None:
    """What the player shows that shows something, None where nobody does."""
    for player, rng in moving:
        if player.shows is not None:
            batch = jax.tree.map(lambda value: value[0], micro)
            return _made_once(player.name, player.shows, partition(variables, player.owns), batch, rng, frozen)
    return None


def _made_once(
    name: str, shows: Shows, parts: tuple[Variables, Variables], batch: Batch, rng: jax.Array, frozen: Any
) -> Shown:
    """`parts`: what the player owns, and the rest. The key is that of the first micro-batch."""
    owned, others = parts
    key = jax.random.fold_in(rng, 0)
    made, back, rest = jax.vjp(lambda own: shows(merge(own, others), batch, key, frozen), owned, has_aux=True)
    return Shown(name, made, rest, back)


def _update(
    player: Player,
    total_steps: int,
    state: TrainState,
    micro: Batch,
    rng: jax.Array,
    frozen: Any,
    unroll: bool,
    branch: bool,
    shown: Shown | None,
) -> tuple[TrainState, Sums, jax.Array]:
    owned, others = partition(state.variables, player.owns)
    own = shown if shown is not None and shown.player == player.name else None

    def objective(given: tuple[Variables, Any], batch: Batch, key: jax.Array) -> Loss:
        owned, made = given
        if shown is not None:
            batch = {**batch, SHOWN: (made if own is not None else shown.made, shown.rest)}
        return player.objective(merge(owned, others), batch, key, frozen)

    given = owned, None if own is None else own.made
    (grads, by_made), loss, pair = accumulated(objective, given, micro, rng, unroll)
    if own is not None:
        grads = jax.tree.map(jnp.add, grads, own.back(by_made)[0])
    has, wants = loss.stats is not None, player.statistics is not None
    require(has == wants, f"player {player.name!r} statistics", wants, f"its objective gives some: {has}")
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(pair[0]) & jnp.isfinite(norm) & _all_finite(loss.stats)
    variables, opt = _moved(player, total_steps, state, owned, grads, loss.stats, finite, branch)
    one = jnp.ones(())
    sums = {"loss": pair, **_means_of_terms(loss.terms), **loss.metrics, "grad_norm": (norm, one)}
    for name, rate in player.optimizer.rates(player.updates(total_steps)).items():
        sums[name] = jnp.asarray(rate((state.step - player.start) // player.every), jnp.float32), one
    return dataclasses.replace(state, variables=variables, opt=state.opt | {player.name: opt}), sums, finite


def _means_of_terms(terms: dict[str, Term]) -> Sums:
    return {name: (term.total, term.count) for name, term in terms.items()} if len(terms) > 1 else {}


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.array(True), *(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))]).all()


def _moved(
    player: Player,
    total_steps: int,
    state: TrainState,
    owned: Variables,
    grads: Variables,
    stats: Any,
    finite: jax.Array,
    branch: bool,
) -> tuple[Variables, Any]:
    """Variables and optimizer state after one update; with `branch` they stay as they are where `finite` is False.

    A branch suits the CPU, where XLA writes moments and weights in loops of their own: a choice made element by element
    has them read what was there before, which costs a copy of both moments. Accelerators do all in one pass.
    """
    opt, rule = state.opt[player.name], player.statistics
    kept = {} if rule is None else {name: state.variables[name] for name in rule.collections}

    def move() -> tuple[Variables, Any, dict[str, Any]]:
        updates, after = player.transformation(total_steps).update(grads, opt, owned)
        return optax.apply_updates(owned, updates), after, {} if rule is None else rule(state.variables, stats)

    owned, opt, kept = jax.lax.cond(finite, move, lambda: (owned, opt, kept)) if branch else move()
    return {**merge(owned, state.variables), **kept}, opt
