"""The one training loop: resumes to the bit, saves on signals, stops on NaN."""

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, BatchIterator
from slm_jax.core.errors import UserError, require
from slm_jax.parallel.hosts import any_host, machine_shape, merged_state
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, shardings_for, unbox, with_shardings
from slm_jax.training.metrics import MetricsLog, Progress, means
from slm_jax.training.run_folder import differences
from slm_jax.training.signals import StopRequest
from slm_jax.training.state import Initialise, TrainState, abstract_state, new_state, overlay
from slm_jax.training.step import Player, StepOutput, acting, check_players, make_step, optimizer_init

log = logging.getLogger(__name__)
Evaluate = Callable[[TrainState], dict[str, float]]

# Settings that change no parameter: a run may go on with other values of these.
FREE = ("log_every", "checkpoint_every_steps", "checkpoint_every_minutes", "keep", "evaluate_every")
IN_FLIGHT = 2  # steps handed to the device before the host looks at the oldest of them


class TrainConfig(Config):
    """How long, on which devices, and how often to look and to save.

    A batch is cut into `accumulate` micro-batches. `ema_decay` None keeps no slow copy. Checkpoints are written every
    so many steps, every so many minutes (None: not by that clock), and at the end; `keep` newest stay.
    `evaluate_every` None evaluates at the end only.
    """

    steps: int
    accumulate: int = 1
    mesh: MeshConfig = MeshConfig()
    ema_decay: float | None = None
    log_every: int = 10
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 10.0
    keep: int = 3
    evaluate_every: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "keep"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        for name in ("checkpoint_every_steps", "evaluate_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "must be None or at least 1")
        minutes = self.checkpoint_every_minutes
        require(minutes is None or minutes > 0, "checkpoint_every_minutes", minutes, "must be None or above 0")
        require(self.ema_decay is None or 0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "must be in [0, 1)")


class Interrupted(Exception):
    """A signal stopped the run after it saved; `exit_code` is 128 + the signal's number."""

    def __init__(self, signum: int, step: int, folder: Path) -> None:
        super().__init__(f"stopped by signal {signum} after step {step}; saved in {folder}; the same command goes on")
        self.signum, self.step, self.exit_code = signum, step, 128 + signum


class TrainingDiverged(UserError):
    """A loss or gradient became NaN or infinite."""

    def __init__(
        self, step: int, examples: list[int], values: dict[str, float], good: int | None, folder: Path
    ) -> None:
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        last = f"step {good} in {folder}" if good is not None else "none yet"
        super().__init__(
            f"training diverged at step {step} ({shown}) on a batch of examples {examples}; "
            f"last good checkpoint: {last}"
        )
        self.step, self.examples, self.last_good = step, examples, good


def train(
    folder: str | Path,
    config: TrainConfig,
    *,
    initialise: Initialise,
    players: Sequence[Player],
    batches: BatchIterator,
    frozen: Any = None,
    evaluate: Evaluate | None = None,
    meta: dict[str, Any] | None = None,
    start_from: Any = None,
    progress: bool = True,
) -> TrainState:
    """Train in `folder`, or go on where a run in it was stopped; returns the state after the last step.

    `initialise(key)` returns Linen variables, boxed or not: `params` and, if any, mutable collections. `start_from`
    replaces parameters of a new run by path (a pre-trained part); a function that returns them is called only when
    there is no checkpoint to go on from. `frozen` is handed to the objectives and not trained. `evaluate(state)` must
    not keep the state, whose arrays the next step takes over. `meta` (JSON) must be the same when a run goes on: the
    token layout's hash belongs there. `progress` shows a bar on stderr. Closing `batches` is the caller's.

    Raises `TrainingDiverged`, `Interrupted` (after saving), `CheckpointError`, and `UserError` when the checkpoint in
    `folder` was made with other settings.
    """
    run = _Run(Path(folder), config, list(players), initialise, batches, frozen, meta or {})
    try:
        state, step = run.restore_or_start(start_from)
        return run.loop(state, step, evaluate, progress)
    finally:
        run.checkpoints.close()


@dataclasses.dataclass
class _Clock:
    """Seconds of the current log window, and those of them that were not training."""

    start: float = dataclasses.field(default_factory=time.perf_counter)
    apart: float = 0.0
    waited: float = 0.0
    compiled: float = 0.0
    rows: int = 0

    def step_ms(self, steps: int) -> float:
        return 1000 * (time.perf_counter() - self.start - self.apart) / steps

    def leave_out(self, since: float) -> float:
        seconds = time.perf_counter() - since
        self.apart += seconds
        return seconds


class _Run:
    """The parts of one call of `train`."""

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        players: list[Player],
        initialise: Initialise,
        batches: BatchIterator,
        frozen: Any,
        meta: dict[str, Any],
    ) -> None:
        self.folder, self.config, self.players, self.batches = folder, config, players, batches
        self.mesh: Mesh = config.mesh.make()
        self.init, self.opt_init = initialise, optimizer_init(players, config.steps)
        ema, rules = config.ema_decay is not None, config.mesh.rules
        self.shapes, self.shardings = abstract_state(initialise, self.opt_init, ema=ema, mesh=self.mesh, rules=rules)
        check_players(players, self.shapes.params)
        self.frozen = jax.device_put(unbox(frozen), shardings_for(frozen, self.mesh, rules))
        self.step = make_step(
            players,
            config.steps,
            mesh=self.mesh,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            shardings=self.shardings,
        )
        self.programs: dict[tuple, Any] = {}
        self.meta = _record(config, players, meta)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep)
        self.flight: deque[tuple[int, np.ndarray, StepOutput]] = deque()
        self.window: list[StepOutput] = []
        self.saved_at = time.monotonic()
        self.clock = _Clock()

    def restore_or_start(self, start_from: Any) -> tuple[TrainState, int]:
        abstract = with_shardings(self.shapes, self.shardings)
        restored = self.checkpoints.restore_latest(abstract.trees(), self._accept)
        if restored is not None:
            self.batches.set_state(restored.data)
            return TrainState.from_trees(restored.trees), restored.step
        key, ema = jax.random.key(self.config.seed), self.config.ema_decay is not None
        state = new_state(self.init, self.opt_init, ema=ema, key=key, shardings=self.shardings)
        start_from = start_from() if callable(start_from) else start_from
        if start_from is not None:
            params = overlay(state.params, unbox(start_from), self.shardings.params)
            slow = overlay(state.ema, unbox(start_from), self.shardings.params) if ema else None
            state = dataclasses.replace(state, params=params, ema=slow)
        return state, 0

    def loop(self, state: TrainState, step: int, evaluate: Evaluate | None, progress: bool) -> TrainState:
        config = self.config
        bar = Progress(self.folder.name, step, config.steps, progress)
        with StopRequest() as stop, MetricsLog(self.folder, step) as lines, bar:
            self.clock = _Clock()
            while step < config.steps:
                state = self._advance(state, step, bar)
                step += 1
                last = step == config.steps
                if last or step % config.log_every == 0:
                    bar.show(self._report(step, lines))
                if evaluate is not None and (last or _due(step, config.evaluate_every)):
                    self._evaluate(state, step, evaluate, lines)
                agreed = jax.process_count() == 1 or step % config.log_every == 0
                stopped = agreed and any_host(stop.signum is not None)
                if last or stopped or _due(step, config.checkpoint_every_steps) or (agreed and self._overdue()):
                    self._save(state, step)
                if stopped:
                    self.checkpoints.wait()
                    raise Interrupted(stop.signum or 15, step, self.folder)
        return state

    def _advance(self, state: TrainState, step: int, bar: Progress) -> TrainState:
        start = time.perf_counter()
        batch = next(self.batches)
        rows = batch["example"]
        self.clock.waited += time.perf_counter() - start
        self.clock.rows += len(rows) * jax.process_count()
        placed = put_batch(batch, self.mesh)
        program = self._program(state, placed, acting(self.players, step), bar)
        state, output = program(state, placed, self.frozen)
        self.window.append(output)
        self.flight.append((step + 1, np.asarray(rows), output))
        self._check_finite(leave=IN_FLIGHT)
        bar.advance()
        return state

    def _program(self, state: TrainState, batch: Batch, names: tuple[str, ...], bar: Progress) -> Any:
        """The step compiled for the shapes of this batch and the players that move."""
        shapes = tuple((name, value.shape, str(value.dtype)) for name, value in batch.items())
        if (shapes, names) not in self.programs:
            start = time.perf_counter()
            self.programs[shapes, names] = self.step.lower(state, batch, self.frozen, names).compile()
            seconds = self.clock.leave_out(start)
            self.clock.compiled += seconds
            sizes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape, _ in shapes)
            bar.say(f"{self.folder.name}: compiled the step for {sizes} in {seconds:.1f} s")
        return self.programs[shapes, names]

    def _check_finite(self, leave: int) -> None:
        """Look at the oldest steps in flight until `leave` remain; stops the run at the first that is not finite."""
        while len(self.flight) > leave:
            step, rows, output = self.flight.popleft()
            if bool(np.asarray(output.finite)):
                continue
            self.checkpoints.wait()
            values = {n: v for n, v in means([output.sums]).items() if n.split("/")[-1] in ("loss", "grad_norm")}
            good = self.checkpoints.latest_step()
            raise TrainingDiverged(step, rows.tolist(), values, good, self.checkpoints.folder)

    def _report(self, step: int, lines: MetricsLog) -> dict[str, float]:
        self._check_finite(leave=0)
        clock, steps = self.clock, len(self.window)
        values = means([output.sums for output in self.window])
        step_ms = clock.step_ms(steps)
        values |= {"step_ms": step_ms, "data_wait_ms": 1000 * clock.waited / steps}
        values["examples_per_s"] = 1000 * clock.rows / (step_ms * steps)
        if clock.compiled:
            values["compile_s"] = clock.compiled
        lines.write(step, values)
        self.window, self.clock = [], _Clock()
        return values

    def _evaluate(self, state: TrainState, step: int, evaluate: Evaluate, lines: MetricsLog) -> None:
        self._check_finite(leave=0)
        start = time.perf_counter()
        values = {f"evaluate/{name}": float(value) for name, value in evaluate(state).items()}
        lines.write(step, {**values, "evaluate_s": self.clock.leave_out(start)})

    def _save(self, state: TrainState, step: int) -> None:
        self._check_finite(leave=0)
        start = time.perf_counter()
        self.checkpoints.save(step, state.trees(), merged_state(self.batches.get_state()), self.meta)
        self.saved_at = time.monotonic()
        self.clock.leave_out(start)

    def _overdue(self) -> bool:
        minutes = self.config.checkpoint_every_minutes
        return any_host(minutes is not None and time.monotonic() - self.saved_at > 60 * minutes)

    def _accept(self, step: int, meta: dict[str, Any]) -> None:
        """Refuse a checkpoint of other settings; warn when it comes from another machine."""
        other = differences(meta["fixed"], self.meta["fixed"])
        if other:
            raise UserError(
                f"checkpoint of step {step} in {self.checkpoints.folder} was made with other settings "
                f"(checkpoint -> now): {'; '.join(other)}. Go on with its settings, or train in another folder"
            )
        moved = differences(meta["machine"], self.meta["machine"])
        if moved:
            log.warning("resuming on another machine shape, so that bits may differ: %s", "; ".join(moved))


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _record(config: TrainConfig, players: Sequence[Player], meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its run: `fixed` must agree on resuming, `machine` should."""
    settings = {name: value for name, value in config.to_json().items() if name not in (*FREE, "mesh")}
    moves = {p.name: {"optimizer": p.optimizer.to_json(), "every": p.every, "start": p.start} for p in players}
    machine = {**machine_shape(), "mesh": config.mesh.to_json()}
    fixed = {"train": settings, "players": moves, "meta": meta}
    return {"fixed": fixed, "machine": machine, "config": config.to_json()}
