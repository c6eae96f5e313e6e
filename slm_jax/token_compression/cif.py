"""Continuous integrate-and-fire (Dong and Xu 2020, arXiv 1905.11235): frames with weights become tokens of weight 1.

Weights are added up along time; whenever the sum reaches the next whole number a token fires, the weighted sum of what
was read since, and a frame on the border is shared out between two tokens. Written in closed form: token u has of frame
t what the stretch of frame t, from the sum before it to the sum with it, shares with the stretch from u to u + 1.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from slm_jax.core.errors import require

TAILS = ("round", "drop", "keep")
SLACK = 1e-4
"""How far from a whole number a sum of weights may be for it."""


class Fired(NamedTuple):
    """`shares[b, t, u]`: how much of frame t is in token u; tokens of each row; what the weights add up to."""

    shares: Float[Array, "B T M"]
    counts: Int[Array, "B"]
    total: Float[Array, "B"]


def fired(
    weights: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    limits: Int[Array, "B"],
    most: int,
    tail: str = "round",
    targets: Int[Array, "B"] | None = None,
) -> Fired:
    """The tokens of rows, at most `limits` of each, in `most` places.

    `targets`: the weights of a row are scaled so that just so many tokens fire (training). Where they add up to more
    than the limit they are scaled to it: later tokens then cover more, and nothing that was said is left out. `tail`:
    what is left at the end becomes a token where it weighs a half ("round", the paper), never, or always; it is not
    made louder, on which the paper is silent. A row with a real frame has one token at least.
    """
    require(tail in TAILS, "tail", tail, f"must be one of {', '.join(TAILS)}")
    weights = jnp.where(mask, weights, 0.0).astype(jnp.float32)
    wanted = weights.sum(1) if targets is None else targets.astype(jnp.float32)
    weights = scaled(weights, jnp.minimum(wanted, limits))
    upto = jnp.cumsum(weights, axis=1)[..., None]
    before, tokens = upto - weights[..., None], jnp.arange(most)
    shares = jnp.maximum(jnp.minimum(upto, tokens + 1) - jnp.maximum(before, tokens), 0.0)
    total = upto[:, -1, 0]
    counts = jnp.clip(_whole(total, tail), mask.any(1), limits)
    return Fired(jnp.where(tokens < counts[:, None, None], shares, 0.0), counts, total)


def scaled(weights: Float[Array, "B T"], totals: Float[Array, "B"]) -> Float[Array, "B T"]:
    """Weights that add up to `totals`; a row without any stays without."""
    found = weights.sum(1, keepdims=True)
    return weights * (totals[:, None] / jnp.maximum(found, 1e-6))


def _whole(total: Float[Array, "B"], tail: str) -> Int[Array, "B"]:
    extra = {"round": jnp.floor(total + 0.5), "drop": jnp.floor(total + SLACK), "keep": jnp.ceil(total - SLACK)}
    return extra[tail].astype(jnp.int32)
