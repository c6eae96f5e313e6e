"""The one training loop: resumes to the bit, saves on signals, stops on NaN and spikes."""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh

from slm_jax.checkpoints.lazy import load_part
from slm_jax.checkpoints.manager import Checkpoints
from slm_jax.core.config import Config
from slm_jax.core.contracts import Batch, BatchIterator
from slm_jax.core.errors import require
from slm_jax.core.mirror import Mirror
from slm_jax.core.paths import AnyPath, Place, as_path
from slm_jax.nn.stack import unstack_on_cpu
from slm_jax.parallel.hosts import Meetings, any_host, is_first_host, merged_state
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch, shardings_for, unbox, with_shardings
from slm_jax.training.clock import Clock
from slm_jax.training.figures import memory, peak_flops, rates, targets
from slm_jax.training.goodput import FILE as GOODPUT
from slm_jax.training.goodput import Ledger, read_goodput
from slm_jax.training.lookout import Lookout, left_out
from slm_jax.training.metrics import FILE as METRICS
from slm_jax.training.metrics import MetricsLog, Progress, means
from slm_jax.training.old_checkpoints import is_old, old_trees, renewed
from slm_jax.training.profiling import Profiler, parse_window
from slm_jax.training.programs import Program, Programs, describe_batch
from slm_jax.training.resuming import check_same_run, describe_run
from slm_jax.training.signals import StopRequest
from slm_jax.training.spikes import SpikeConfig, nothing_seen
from slm_jax.training.state import SPIKES, Initialise, TrainState, abstract_state, begun_from, new_state
from slm_jax.training.step import Player, StepOutput, acting, check_players, make_step, optimizer_init, trained_leaves
from slm_jax.training.stops import Interrupted, full_disk_told

log = logging.getLogger(__name__)
Evaluate = Callable[[TrainState, Any], dict[str, float]]
"""Figures of a state on held-out examples; it is handed the frozen parts too."""

SpeechSeconds = Callable[[dict[str, np.ndarray]], float]
"""Seconds of real speech in a batch (the rows of one host)."""

IN_FLIGHT, IN_FLIGHT_ON_CPU = 2, 1
"""Steps handed to the devices before the host looks at the oldest of them. Each that waits on a CPU holds its scratch
already, and it is no quicker for it."""


class TrainConfig(Config):
    """How long, on which devices, and how often to look and to save.

    A batch is cut into `accumulate` micro-batches. `ema_decay` None keeps no slow copy. Checkpoints are written every
    so many steps, every so many minutes (None: not by that clock), and at the end; `keep` newest stay.
    `evaluate_every` None evaluates at the end only. `profile` "10:15" traces the steps after the 10th, up to the 15th,
    into the folder `profile`. `spike`: what to do about loss spikes, None leaves every batch in.
    """

    # A run may go on with other values of these: they change no parameter, or are a way out (`spike`), or the
    # checkpoint's `machine` answers for them (`mesh`).
    FREE: ClassVar[tuple[str, ...]] = (
        *("log_every", "checkpoint_every_steps", "checkpoint_every_minutes", "keep", "evaluate_every"),
        *("profile", "spike", "mesh"),
    )

    steps: int
    accumulate: int = 1
    mesh: MeshConfig = MeshConfig()
    ema_decay: float | None = None
    log_every: int = 10
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = 10.0
    keep: int = 3
    evaluate_every: int | None = None
    profile: str | None = None
    spike: SpikeConfig | None = None
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
        if self.profile is not None:
            parse_window(self.profile)


def train(
    folder: Place,
    config: TrainConfig,
    *,
    initialise: Initialise,
    players: Sequence[Player],
    batches: BatchIterator,
    frozen: Any = None,
    evaluate: Evaluate | None = None,
    meta: dict[str, Any] | None = None,
    start_from: Any = None,
    speech_s: SpeechSeconds | None = None,
    progress: bool = True,
    say: Callable[[str], None] = log.info,
) -> TrainState:
    """Train in `folder`, or go on where a run in it was stopped; returns the state after the last step.

    `folder` may be one of a store: checkpoints go there at once, logs a little later. `initialise(key)` returns Linen
    variables, boxed or not: `params` and, if any, other collections. `start_from` replaces leaves of a new run by path
    (a pre-trained part), a tree without collections those of `params`; a function that returns them is called only when
    there is no checkpoint to go on from. `frozen` is handed to the objectives and not trained; its leaves may be lazy,
    and lie under the mesh's rules where they are boxed; on one CPU device its stacks come `unstack`ed. `evaluate(state,
    frozen)` must not keep the state, whose arrays the next step takes over. `meta` (JSON) must be the same when a run
    goes on: the token layout's hash belongs there.
    `speech_s` tells the seconds of speech of a batch, for the log. `progress` shows a bar on stderr, `say` takes the
    account of time at the end. Closing `batches` is the caller's.

    Raises `TrainingDiverged` (`TooManySpikes` is one), `Interrupted` (after saving), `CheckpointError`, and
    `UserError` when the checkpoint in `folder` was made with other settings.
    """
    folder = as_path(folder)
    with Mirror(folder, (METRICS, GOODPUT), is_first_host()) as logs:
        with Ledger(logs.path) as ledger:
            run = _Run(folder, config, list(players), initialise, batches, frozen, meta or {}, logs, ledger, speech_s)
            try:
                state, step = run.restore_or_start(start_from)
                with full_disk_told(folder, run.checkpoints.latest_step):
                    state = run.loop(state, step, evaluate, progress)
            finally:
                run.checkpoints.close()
        if is_first_host():
            say(f"{folder.name}: {read_goodput(logs.path).to_text()}")
    return state


class _Run:
    """The parts of one call of `train`."""

    def __init__(
        self,
        folder: AnyPath,
        config: TrainConfig,
        players: list[Player],
        initialise: Initialise,
        batches: BatchIterator,
        frozen: Any,
        meta: dict[str, Any],
        logs: Mirror,
        ledger: Ledger,
        speech_s: SpeechSeconds | None,
    ) -> None:
        self.folder, self.config, self.players, self.batches = folder, config, players, batches
        self.logs, self.ledger, self.speech_s = logs, ledger, speech_s
        self.mesh: Mesh = config.mesh.make()
        self.init, self.opt_init = initialise, optimizer_init(players, config.steps)
        slow = None if config.ema_decay is None else trained_leaves(players)
        self.parts: dict[str, Any] = {"ema": slow, "memory": None}
        if config.spike is not None:
            self.parts["memory"] = functools.partial(nothing_seen, config.spike, [player.name for player in players])
        rules = config.mesh.rules
        self.shapes, self.shardings = abstract_state(
            initialise, self.opt_init, mesh=self.mesh, rules=rules, **self.parts
        )
        check_players(players, self.shapes.variables)
        # read now, each device its share, where leaves are lazy and boxed
        self.frozen = unstack_on_cpu(load_part(unbox(frozen), shardings_for(frozen, self.mesh, rules)), self.mesh)
        step = make_step(
            players,
            config.steps,
            mesh=self.mesh,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            shardings=self.shardings,
            spike=config.spike,
        )
        self.programs = Programs(step, self.frozen)
        self.peak_flops = peak_flops(self.mesh.devices.flat)
        self.meta = describe_run(config, config.mesh, players, meta)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep)
        self.lookout = Lookout(self.checkpoints, config.spike)
        self.window: list[StepOutput] = []
        self.saved_at = time.monotonic()
        self.clock = Clock()

    def restore_or_start(self, start_from: Any) -> tuple[TrainState, int]:
        with self._spend("restore"):
            restored = self.checkpoints.restore_latest(self._abstract, self._accept, optional=(SPIKES,))
        if restored is not None:
            self.batches.set_state(restored.data)
            old = is_old(restored.meta)
            state = renewed(restored.trees, self.shapes) if old else TrainState.from_trees(restored.trees)
            return self._with_memory(state), restored.step
        key = jax.random.key(self.config.seed)
        state = new_state(self.init, self.opt_init, key=key, shardings=self.shardings, **self.parts)
        start_from = start_from() if callable(start_from) else start_from
        return (state if start_from is None else begun_from(state, unbox(start_from), self.shardings)), 0

    def _abstract(self, meta: dict[str, Any]) -> dict[str, Any]:
        """The items of a checkpoint of which `meta` is the JSON, as shapes on their shardings."""
        trees = with_shardings(self.shapes, self.shardings).trees()
        return old_trees(trees, self.players, self.config.steps) if is_old(meta) else trees

    def _with_memory(self, state: TrainState) -> TrainState:
        """A checkpoint from before the policy for spikes, or of another one, remembers nothing."""
        if self.parts["memory"] is None or state.spikes is not None:
            return state
        spikes = jax.jit(self.parts["memory"], out_shardings=self.shardings.spikes)()
        return dataclasses.replace(state, spikes=spikes)

    def loop(self, state: TrainState, step: int, evaluate: Evaluate | None, progress: bool) -> TrainState:
        config = self.config
        bar = Progress(self.folder.name, step, config.steps, progress)
        profiler, meetings = Profiler(self.logs.path, config.profile), Meetings(step, config.log_every)
        with StopRequest() as stop, MetricsLog(self.logs.path, step) as lines, bar, profiler:
            if step < config.steps:
                self.ledger.note("ready", step)
            self.clock, first = Clock(), step
            while step < config.steps:
                with profiler.step(step, state):
                    state = self._advance(state, step, bar)
                if step == first:
                    self.ledger.note("first step")
                step += 1
                last = step == config.steps
                if last or step % config.log_every == 0:
                    bar.show(self._report(step, lines))
                if evaluate is not None and (last or _due(step, config.evaluate_every)):
                    self._evaluate(state, step, evaluate, lines)
                agreed = meetings.due(step)
                stopped = agreed and any_host(stop.signum is not None)
                if last or stopped or _due(step, config.checkpoint_every_steps) or (agreed and self._overdue()):
                    self._save(state, step)
                if stopped:
                    self.checkpoints.wait()
                    raise Interrupted(stop.signum or 15, step, self.folder)
        return state

    def _advance(self, state: TrainState, step: int, bar: Progress) -> TrainState:
        with self._spend("data"):
            batch = next(self.batches)
        rows = batch["example"]
        placed = put_batch(batch, self.mesh)
        everywhere = placed["example"].shape[0]
        self.clock.rows += everywhere
        if self.speech_s is not None:  # hosts may read the same rows, so that their number would not do
            self.clock.speech_s += self.speech_s(batch) * everywhere / len(rows)
        program = self._program(state, placed, acting(self.players, step), bar)
        self.clock.flops += program.flops
        state, output = program.run(state, placed, self.frozen)
        self.window.append(output)
        self.lookout.add(step + 1, np.asarray(rows), output)
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        self.lookout.look(leave=IN_FLIGHT_ON_CPU if on_cpu else IN_FLIGHT)
        bar.advance()
        return state

    def _program(self, state: TrainState, batch: Batch, names: tuple[str, ...], bar: Progress) -> Program:
        program = self.programs.known(batch, names)
        if program is None:
            start = time.perf_counter()
            with self._spend("compile"):
                program = self.programs.compile(state, batch, names)
            took = time.perf_counter() - start
            bar.say(f"{self.folder.name}: compiled the step for {describe_batch(batch)} in {took:.1f} s")
        return program

    def _report(self, step: int, lines: MetricsLog) -> dict[str, float]:
        self.lookout.look()
        figures = rates(self.clock, len(self.window), targets(self.window), self.peak_flops)
        values = means([output.sums for output in self.window if not left_out(output)]) | figures | memory()
        if (verdict := self.window[-1].verdict) is not None:
            values |= {"left_out": sum(map(left_out, self.window)), "left_out_in_all": int(verdict.in_all)}
        lines.write(step, values)
        self.ledger.note("log", step)
        self.logs.sync()
        self.window, self.clock = [], Clock()
        return values

    def _evaluate(self, state: TrainState, step: int, evaluate: Evaluate, lines: MetricsLog) -> None:
        self.lookout.look()
        before = self.clock.spent["evaluate"]
        with self._spend("evaluate"):
            values = {f"evaluate/{name}": float(value) for name, value in evaluate(state, self.frozen).items()}
        lines.write(step, {**values, "evaluate_s": self.clock.spent["evaluate"] - before})
        self.ledger.note("evaluate", step)

    def _save(self, state: TrainState, step: int) -> None:
        self.lookout.look()
        with self._spend("save"):
            self.checkpoints.save(step, state.trees(), merged_state(self.batches.get_state()), self.meta)
        self.saved_at = time.monotonic()
        self.ledger.note("save", step)

    @contextlib.contextmanager
    def _spend(self, cause: str) -> Iterator[None]:
        """The block's time goes to `cause`, in the log window and in the account of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.clock.spent[cause] += seconds
            self.ledger.spent[cause] += seconds

    def _overdue(self) -> bool:
        minutes = self.config.checkpoint_every_minutes
        return any_host(minutes is not None and time.monotonic() - self.saved_at > 60 * minutes)

    def _accept(self, step: int, meta: dict[str, Any]) -> None:
        check_same_run(step, self.checkpoints.folder, meta, self.meta)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
