"""The training step of a stage as a program for devices that are not here."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from slm_jax.core.errors import require
from slm_jax.parallel.sharding import batch_sharding, row_shards, shardings_for, unbox, with_shardings
from slm_jax.training.gradient_stage import GradientStageConfig, Outline
from slm_jax.training.spikes import nothing_seen
from slm_jax.training.stages import RunConfig
from slm_jax.training.state import TrainState, abstract_state
from slm_jax.training.step import check_players, make_step, optimizer_init, trained_leaves


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that the step of a stage is compiled from: shapes with their shardings, and no values."""

    stage: GradientStageConfig
    outline: Outline
    mesh: Mesh
    state: TrainState
    batch: dict[str, jax.ShapeDtypeStruct]
    frozen: Any
    step: Any

    @property
    def names(self) -> tuple[str, ...]:
        """All players: the step in which everybody moves."""
        return tuple(player.name for player in self.outline.players)

    @property
    def rows_per_share(self) -> int:
        """Rows that one device looks at in one micro-batch."""
        return self.stage.batches.batch // (self.stage.train.accumulate * row_shards(self.mesh))

    def trace(self) -> Any:
        """The traced step: `.jaxpr`, `.lower()`."""
        return self.step.trace(self.state, self.batch, self.frozen, self.names)


def make_program(stage: GradientStageConfig, run: RunConfig, devices: Sequence[Any]) -> Program:
    """The step of `stage` over `devices`; raises `UserError` when batch or mesh do not divide over them."""
    outline, train = stage.outline(run), stage.train
    players, mesh = list(outline.players), train.mesh.make(devices)
    check_rows(stage, row_shards(mesh))
    shapes, shardings = abstract_state(
        outline.initialise,
        optimizer_init(players, train.steps),
        ema=None if train.ema_decay is None else trained_leaves(players),
        mesh=mesh,
        rules=train.mesh.rules,
        memory=None if train.spike is None else partial(nothing_seen, train.spike, [each.name for each in players]),
    )
    check_players(players, shapes.variables)
    step = make_step(
        players,
        train.steps,
        mesh=mesh,
        accumulate=train.accumulate,
        ema_decay=train.ema_decay,
        shardings=shardings,
        spike=train.spike,
    )
    state = with_shardings(shapes, shardings)
    frozen = placed_frozen(outline, stage, mesh)
    return Program(stage, outline, mesh, state, placed_batch(outline, mesh), frozen, step)


def check_rows(stage: GradientStageConfig, shares: int) -> None:
    """Raise `UserError` that names a batch which divides over so many shares of rows."""
    batch, accumulate = stage.batches.batch, stage.train.accumulate
    need = accumulate * shares
    near = max(1, round(batch / need)) * need
    rule = f"must divide by train.accumulate ({accumulate}) times the {shares} shares of rows: take {near}, or --fit"
    require(batch % need == 0, f"{stage.name}.batches.batch", batch, rule)


def placed_batch(outline: Outline, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a batch as `put_batch` places them."""
    place = batch_sharding(mesh)

    def array(shape: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, jax.dtypes.canonicalize_dtype(shape.dtype), sharding=place)

    return {name: array(shape) for name, shape in outline.batch.items()}


def placed_frozen(outline: Outline, stage: GradientStageConfig, mesh: Mesh) -> Any:
    """What the objectives read and nobody trains, under the mesh's rules; what has no axes is whole on every device."""
    return with_shardings(unbox(outline.frozen), shardings_for(outline.frozen, mesh, stage.train.mesh.rules))
