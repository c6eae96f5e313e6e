"""How a gradient passes a quantizer, which has none of its own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def straight_through(vectors: Float[Array, "*S D"], codes: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """The codes, with the gradient of the vectors (van den Oord et al. 2017, section 3.2)."""
    return vectors + jax.lax.stop_gradient(codes - vectors)


def rotated(vectors: Float[Array, "*S D"], codes: Float[Array, "*S D"]) -> Float[Array, "*S D"]:
    """The codes, as vectors turned and stretched onto them by a constant map (Fifty et al. 2024, section 4.2).

    Gradients keep their angle to the vector that they had to its code.
    """
    lengths = jnp.linalg.norm(vectors, axis=-1, keepdims=True), jnp.linalg.norm(codes, axis=-1, keepdims=True)
    start, end = (x / jnp.maximum(length, 1e-6) for x, length in zip((vectors, codes), lengths, strict=True))
    between = start + end
    between = between / jnp.maximum(jnp.linalg.norm(between, axis=-1, keepdims=True), 1e-6)
    start, end, between, stretch = jax.lax.stop_gradient(
        (start, end, between, lengths[1] / jnp.maximum(lengths[0], 1e-6))
    )
    along = lambda axis: (vectors * axis).sum(-1, keepdims=True)  # noqa: E731
    return stretch * (vectors - 2 * along(between) * between + 2 * along(start) * end)


ESTIMATORS = {"straight_through": straight_through, "rotation": rotated}
