"""Where codebooks start: clusters of what their books are given (k-means), one book after the other."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.quantizers.codebooks import COLLECTION
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.parallel import ParallelVQConfig
from slm_jax.quantizers.residual import ResidualVQConfig


def started(
    config: ResidualVQConfig | ParallelVQConfig, variables: Any, latents: Frames, iterations: int = 50, seed: int = 0
) -> dict[str, Any]:
    """Variables of a quantizer whose books are clusters of `latents`; those of one book after those before it.

    Raises `UserError` when there are fewer real latents than codes.
    """
    quantizer, mask = config.make(), np.asarray(latents.mask)
    for book in range(config.books):
        vectors = quantizer.apply(variables, book, latents, method="given_to")
        rows = np.asarray(vectors)[mask[:, :: mask.shape[1] // vectors.shape[1]]]
        path, place, size = _table(config, book)
        require(len(rows) >= size, "latents to start codebooks from", len(rows), f"at least the {size} codes of a book")
        fit = fit_kmeans(KMeansConfig(clusters=size, iterations=iterations, seed=seed), rows)
        usage = jnp.asarray(fit.counts, jnp.float32)
        made = {"entries": fit.centroids, "usage": usage, "sums": fit.centroids * usage[:, None]}
        variables = _replaced(variables, (COLLECTION if config.counted else "params", *path), place, made)
    return variables


def _table(config: ResidualVQConfig | ParallelVQConfig, book: int) -> tuple[tuple[str, ...], int, int]:
    """Path of the stack of codebooks that holds a book, its place there, and its codes."""
    if isinstance(config, ResidualVQConfig):
        return ("codebooks",), book, config.codebook.size
    for index, part in enumerate(config.parts):
        if book < part.books:
            return (f"parts_{index}", "codebooks"), book, part.codebook.size
        book -= part.books
    raise ValueError("no such book")


def _replaced(tree: Any, path: tuple[str, ...], place: int, made: dict[str, Any]) -> dict[str, Any]:
    """The tree with one book of each table under `path` replaced."""
    if path:
        return {**tree, path[0]: _replaced(tree[path[0]], path[1:], place, made)}
    return {name: table.at[place].set(made[name]) for name, table in tree.items()}
