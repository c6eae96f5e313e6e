"""The training step, compiled once for every shape of batch and set of players that occurs."""

from typing import Any, NamedTuple

from slm_jax.core.contracts import Batch
from slm_jax.core.flops import count_flops
from slm_jax.training.state import TrainState


class Program(NamedTuple):
    """A compiled step `(state, batch, frozen) -> (state, output)` and what one run of it costs the model."""

    run: Any
    flops: int


class Programs:
    """Compiled forms of the step of `training.step.make_step`."""

    def __init__(self, step: Any, frozen: Any) -> None:
        self._step, self._frozen = step, frozen
        self._known: dict[tuple, Program] = {}

    def known(self, batch: Batch, names: tuple[str, ...]) -> Program | None:
        """The program for the shapes of `batch` and the players `names`, None when it has not been compiled yet."""
        return self._known.get((_shapes(batch), names))

    def compile(self, state: TrainState, batch: Batch, names: tuple[str, ...]) -> Program:
        """Make it; its FLOPs are counted here, once."""
        traced = self._step.trace(state, batch, self._frozen, names)
        program = Program(traced.lower().compile(), count_flops(traced.jaxpr).model)
        self._known[_shapes(batch), names] = program
        return program


def describe_batch(batch: Batch) -> str:
    """`ids 4x256, mask 4x256`."""
    return ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in batch.items())


def _shapes(batch: Batch) -> tuple:
    return tuple((name, value.shape, str(value.dtype)) for name, value in batch.items())
