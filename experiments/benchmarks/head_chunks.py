"""One LLaMA layer with its head of 32,000 words, loss and gradients, by chunks of time: `python head_chunks.py`.

Prints JSON: chunk (None: all 512 steps at once) -> medians of seven of milliseconds on the clock and of all cores, all
in turns.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from slm_jax.cli.memory import keep_memory
from slm_jax.objectives.next_token import NextTokenConfig
from slm_jax.sequence_models.presets import llama

CHUNKS = (None, 64, 128, 256)
WORDS, ROUNDS, REST_S = 32_000, 7, 0.05


def forms() -> dict[str, Callable[[], object]]:
    """Chunk -> a function that makes loss and gradients once."""
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(4, WORDS, (4, 512)), jnp.int32)
    model = llama("7b", layers=1, width=768, heads=12, kv_heads=12, hidden=3072, vocabulary=WORDS).make()
    shapes = meta.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), ids[:1, :4])))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape), jnp.float32), shapes)

    def form(chunk: int | None) -> Callable[[], object]:
        objective = NextTokenConfig(chunk=chunk).make(model)

        def total(params: Any) -> jax.Array:
            return objective({"params": params}, {"ids": ids}, None).terms["tokens"].total

        program = jax.jit(jax.value_and_grad(total))
        return lambda: jax.block_until_ready(program(params))

    return {str(chunk): form(chunk) for chunk in CHUNKS}


def main() -> None:
    keep_memory()
    runs = forms()
    for run in runs.values():
        run(), run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            time.sleep(REST_S)
            wall, cores = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cores))
    found = {name: 1e3 * np.median(pairs, axis=0) for name, pairs in seconds.items()}
    print(json.dumps({name: {"ms": round(wall), "cpu_ms": round(cores)} for name, (wall, cores) in found.items()}))


if __name__ == "__main__":
    main()
