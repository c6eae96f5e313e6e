"""The products of training steps and of nearest centroids, alone: `python products.py` prints one JSON object a line.

Each is done by XLA, PyTorch and, for centroids, faiss (whose search also finds the least distance), in turns. GFLOP/s
on the clock and per second of one core, medians of nine.
"""

import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.cli.memory import keep_memory
from slm_jax.quantizers.nearest import assign

ROUNDS, REST_S = 9, 0.05
LAYERS = ((2048, 768, 3072), (2048, 3072, 768), (2048, 768, 768), (2048, 768, 32000))
"""Rows, inputs, outputs."""
Ways = dict[str, Callable[[], object]]


def layer(rows: int, inputs: int, outputs: int) -> Ways:
    """The product of a dense layer, that of its input's gradient and that of its weights' gradient."""
    import torch

    x, g, w = normal(rows, inputs), normal(rows, outputs), normal(inputs, outputs)
    tx, tg, tw = (torch.tensor(value) for value in (x, g, w))
    ways: Ways = {}
    for name, sides in {"forward": "td,dk->tk", "inputs": "tk,dk->td", "weights": "td,tk->dk"}.items():
        pair = {"forward": (x, w), "inputs": (g, w), "weights": (x, g)}[name]
        ways[f"{name}, XLA"] = compiled(lambda a, b, sides=sides: jnp.einsum(sides, a, b), *pair)
    ways["forward, PyTorch"] = lambda: tx @ tw
    ways["inputs, PyTorch"] = lambda: tg @ tw.T
    ways["weights, PyTorch"] = lambda: tx.T @ tg
    return ways


def centroids(count: int, rows: int = 30_000, width: int = 768, block: int = 500) -> Ways:
    """Distances: our search, its product of matrices alone in blocks, PyTorch's product, and faiss."""
    import faiss
    import torch

    x, c = normal(rows, width), normal(count, width)
    blocks, tx, tc = x.reshape(-1, block, width), torch.tensor(x), torch.tensor(c)
    index = faiss.IndexFlatL2(width)
    index.add(c)
    own = jnp.asarray(x), jnp.asarray(c)
    return {
        "search, ours": lambda: np.asarray(assign(*own)),
        "product in blocks, XLA": compiled(lambda b, c: jax.lax.map(lambda rows: (rows @ c.T)[:, 0], b), blocks, c),
        "product, PyTorch": lambda: tx @ tc.T,
        "search, faiss": lambda: index.search(x, 1),
    }


def compiled(f: Callable, *inputs: np.ndarray) -> Callable[[], object]:
    arrays = [jnp.asarray(value) for value in inputs]
    program = jax.jit(f).lower(*arrays).compile()
    return lambda: program(*arrays).block_until_ready()


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def measured(ways: Ways, gflop: float) -> dict[str, dict[str, float]]:
    """GFLOP/s of every way, all in turns."""
    for run in ways.values():
        run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            time.sleep(REST_S)
            cores, wall = time.process_time(), time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cores))
    rates = {name: gflop / np.median(pairs, axis=0) for name, pairs in seconds.items()}
    return {name: {"gflop_s": round(rate[0], 1), "per_core_s": round(rate[1], 1)} for name, rate in rates.items()}


def main() -> None:
    keep_memory()
    import torch

    torch.set_num_threads(2)
    for shape in LAYERS:
        rates = measured(layer(*shape), 2e-9 * np.prod(shape))
        print(json.dumps({"rows": shape[0], "inputs": shape[1], "outputs": shape[2], "rates": rates}), flush=True)
    for count in (500, 2000):
        rates = measured(centroids(count), 2e-9 * 30_000 * 768 * count)
        print(json.dumps({"rows": 30_000, "inputs": 768, "outputs": count, "rates": rates}), flush=True)


if __name__ == "__main__":
    main()
