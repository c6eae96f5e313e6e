"""One AdamW update of 162 million weights on a CPU, in several forms, and PyTorch's: `python adamw.py [--rounds 9]`.

Prints JSON: form -> medians of milliseconds on the clock and of all cores, all forms in turns. Every form of ours takes
the norm of the gradients but `bare`. Where that is not finite, `chosen` keeps what was there element by element,
`branch` with one branch for all (what `training.step` does on a CPU), `unguarded` not at all.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from slm_jax.cli.memory import keep_memory
from slm_jax.training.optimizer import OptimizerConfig

SHAPES = ((32_000, 768), *((768, 3072),) * 48, (768, 32_000))
"""As many weights as `llama_160m_train` has."""
ADAMW = OptimizerConfig(learning_rate=1e-4, schedule="constant", weight_decay=0.01, no_decay="$^", clip=None).make(1)
REST_S = 0.05
Form = Callable[[Any, Any], Any]


def forms() -> dict[str, Form]:
    """Name -> (weights and optimizer state, gradients) -> the same after the update."""

    def moved(state: Any, grads: Any) -> Any:
        weights, opt = state
        updates, after = ADAMW.update(grads, opt, weights)
        return optax.apply_updates(weights, updates), after

    def chosen(state: Any, grads: Any) -> Any:
        finite = jnp.isfinite(optax.tree.norm(grads))
        return jax.tree.map(lambda after, before: jnp.where(finite, after, before), moved(state, grads), state)

    def branch(state: Any, grads: Any) -> Any:
        return jax.lax.cond(jnp.isfinite(optax.tree.norm(grads)), moved, lambda state, grads: state, state, grads)

    def unguarded(state: Any, grads: Any) -> Any:
        return moved(state, grads), optax.tree.norm(grads)

    return {"chosen": chosen, "branch": branch, "unguarded": unguarded, "bare": moved}


def run_of(form: Form, name: str, grads: Any) -> Callable[[], None]:
    """Does one update of weights of its own, whose memory the next one takes over."""
    weights = [jnp.asarray(normal(shape)) for shape in SHAPES]
    state, program = (weights, ADAMW.init(weights)), jax.jit(form, donate_argnums=0)

    def run() -> None:
        nonlocal state
        out = jax.block_until_ready(program(state, grads))
        state = out[0] if name == "unguarded" else out

    return run


def pytorch() -> Callable[[], None]:
    """The same in PyTorch, fused."""
    import torch

    weights = [torch.nn.Parameter(torch.tensor(normal(shape))) for shape in SHAPES]
    for weight in weights:
        weight.grad = torch.tensor(normal(tuple(weight.shape)))
    return torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.01, fused=True).step


def normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def measured(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Medians; one round before them warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(REST_S)
            wall, cores = time.perf_counter(), time.process_time()
            run()
            if turn:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - cores))
    found = {name: 1e3 * np.median(pairs, axis=0) for name, pairs in seconds.items()}
    return {name: {"ms": round(wall), "cpu_ms": round(cores)} for name, (wall, cores) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    keep_memory()
    grads = [jnp.asarray(normal(shape)) for shape in SHAPES]
    runs = {name: run_of(form, name, grads) for name, form in forms().items()}
    print(json.dumps(measured(runs | {"PyTorch": pytorch()}, rounds)))


if __name__ == "__main__":
    main()
