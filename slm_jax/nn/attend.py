"""The equation of attention on heads."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from slm_jax.core.errors import require
from slm_jax.nn.dtypes import at_least_float32

Dropout = Callable[[jax.Array], jax.Array]


def attend(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B S G C"],
    v: Float[Array, "B S G C"],
    *,
    bias: Float[Array, "#B #H #T #S"] | None = None,
    mask: Bool[Array, "#B #T #S"] | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H C"]:
    """`softmax(scale * q k + bias) v` with the softmax in float32; H / G query heads share each key head.

    `mask` and `bias` may have size 1 on any axis; `scale` is `1 / sqrt(C)` unless given. A query that may look at
    nothing gets a finite value that means nothing. `dropout` acts on the weights.
    """
    return attend_by_head(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), bias, mask, scale, dropout)


def attend_by_head(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B G S C"],
    v: Float[Array, "B G S C"],
    bias: Float[Array, "#B #H #T #S"] | None = None,
    mask: Bool[Array, "#B #T #S"] | None = None,
    scale: float | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T H C"]:
    """`attend` with the keys of each head side by side, as caches hold them: products read them where they lie."""
    batch, queries, heads, width = q.shape
    groups = k.shape[1]
    require(heads % groups == 0, "heads", heads, f"must be a multiple of the {groups} key heads")
    # The small queries are turned, not the scores, and the scores have four axes: XLA on CPU copies those of
    # "btgrc,bgsc->bgrts" in both directions, and takes three times as long over softmax and gradient with five axes.
    q = q.reshape(batch, queries, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)
    q = q.reshape(batch, groups, -1, width)
    scores = jnp.einsum("bgqc,bgsc->bgqs", q, k, preferred_element_type=at_least_float32(q.dtype))
    scores = scores.reshape(batch, heads, queries, k.shape[2]) * (width**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias.astype(scores.dtype)
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, jnp.finfo(scores.dtype).min)
    # softmax whose division comes after the product with the values: its gradient then needs one pass over [T, S] less
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    if dropout is not None:
        weights = dropout(weights)
    # as a plain product of matrices: einsum turns the operands round, and XLA then copies the values at every step
    weights = weights.reshape(batch, groups, -1, k.shape[2]).astype(v.dtype)
    y = jnp.matmul(weights, v, preferred_element_type=total.dtype)
    y = (y / total.reshape(batch, groups, -1, 1)).astype(v.dtype)
    y = y.reshape(batch, groups, heads // groups, queries, width)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, queries, heads, width)
