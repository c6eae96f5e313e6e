"""Cross-entropy of tokens, on whole logits or in chunks that never hold all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from slm_jax.nn.linear import logits_float32, scores_float32
from slm_jax.parallel.placement import axis_size, current_mesh, time_spec
from slm_jax.parallel.rules import ROW_AXES


class TokenSums(NamedTuple):
    """Sums over the counted tokens: the loss, the plain negative log-likelihood (nats), and the right guesses."""

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    correct: Float[Array, ""]


class Terms(NamedTuple):
    """What is added to the plain loss: `smoothing` spreads that share of the target evenly over the vocabulary,
    `z_loss` weighs the square of the log normaliser."""

    smoothing: float = 0.0
    z_loss: float = 0.0


def token_sums(
    logits: Float[Array, "B S V"],
    targets: Int[Array, "B S"],
    counted: Bool[Array, "B S"] | Float[Array, "B S"],
    terms: Terms,
) -> TokenSums:
    """Sums over the entries where `counted` holds, or is above 0 and weighs them; in others not even a NaN counts."""
    flags = counted.dtype == bool
    real = counted if flags else counted > 0
    logits = jnp.where(real[..., None], logits.astype(jnp.float32), 0.0)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    nll = log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = nll
    if terms.smoothing:
        loss = (1.0 - terms.smoothing) * nll + terms.smoothing * (log_z - logits.mean(-1))
    if terms.z_loss:
        loss = loss + terms.z_loss * jnp.square(log_z)
    correct = jnp.argmax(logits, axis=-1) == targets
    summed = (jnp.where(real, x, 0.0) for x in (loss, nll, correct))
    return TokenSums(*(jnp.sum(x if flags else x * counted) for x in summed))


def chunked_token_sums(
    terms: Terms,
    chunk: int,
    features: Float[Array, "B S D"],
    matrix: Float[Array, "D V"],
    targets: Int[Array, "B S"],
    counted: Bool[Array, "B S"] | Float[Array, "B S"],
    tied: bool = False,
) -> TokenSums:
    """`token_sums(features @ matrix, ...)` over `chunk` steps of time at once, or all where there are fewer.

    `tied`: `matrix` is the transpose of a table of embeddings, which is then read as it lies.

    Only `loss` has a gradient; it is made in the forward pass, so that no chunk's logits are computed twice, and none
    is made of a `matrix` that nobody trains. A chunk in which nothing counts has no logits. On a mesh every device goes
    through the chunks of its own rows and time, and the gradients of `matrix` are summed over devices once at the end,
    not after every chunk.
    """
    mesh, form = current_mesh(), _Form(terms, chunk, tied=tied)
    matrix = matrix.T if tied else matrix  # of a table: itself
    if mesh is None:
        return _chunked(form, features, matrix, targets, counted)
    form = form._replace(skips=mesh.shape["tensor"] == 1)  # where XLA spreads logits, devices must not part ways
    place = PartitionSpec(*time_spec(mesh, features.shape))
    manual = {*ROW_AXES, "sequence"} if mesh.shape["tensor"] > 1 else set(mesh.axis_names)
    apart = PartitionSpec((*ROW_AXES, "sequence"))

    def local(features: Array, matrix: Array, targets: Array, counted: Array) -> TokenSums:
        return jax.tree.map(lambda total: total[None], _chunked(form, features, matrix, targets, counted))

    specs = (place, PartitionSpec(), place, place)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=apart, axis_names=manual, check_vma=False)
    parts = mapped(features, matrix, targets, counted)
    copies = axis_size(mesh, (*ROW_AXES, "sequence")) // axis_size(mesh, _named(place))
    return jax.tree.map(lambda part: part.sum() / copies, parts)


class _Form(NamedTuple):
    """How chunks are gone through: `skips` those in which nothing counts; the matrix of a `tied` head is `[V, D]`."""

    terms: Terms
    chunk: int
    skips: bool = True
    tied: bool = False


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(form: _Form, features: Any, matrix: Any, targets: Any, counted: Any) -> TokenSums:
    def add(total: TokenSums, part: Any) -> tuple[TokenSums, None]:
        sums = _unless_empty(form.skips, part, lambda: _part_sums(form, part[0], matrix, *part[1:]))
        return jax.tree.map(jnp.add, total, sums), None

    return jax.lax.scan(add, _zeros(), _chunks(form.chunk, features, targets, counted))[0]


def _forward(form: _Form, *given: Any) -> tuple:
    features, matrix, targets, counted = (one.value for one in given)
    trained = given[1].perturbed

    def loss_and_sums(x: jax.Array, matrix: jax.Array, *rest: Any) -> tuple[jax.Array, TokenSums]:
        sums = _part_sums(form, x, matrix, *rest)
        return sums.loss, sums

    gradients = jax.grad(loss_and_sums, argnums=(0, 1) if trained else (0,), has_aux=True)

    def add(total: tuple, part: Any) -> tuple[tuple, jax.Array]:
        (d_features, *d_matrix), sums = _unless_empty(form.skips, part, lambda: gradients(part[0], matrix, *part[1:]))
        return jax.tree.map(jnp.add, total, (sums, d_matrix)), d_features

    start = (_zeros(), [jnp.zeros(matrix.shape, jnp.float32)] if trained else [])
    (sums, d_matrix), parts = jax.lax.scan(add, start, _chunks(form.chunk, features, targets, counted))
    d_features = jnp.moveaxis(parts, 0, 1).reshape(features.shape[0], -1, features.shape[2])[:, : features.shape[1]]
    return sums, (d_features, d_matrix[0].astype(matrix.dtype) if trained else None)


def _backward(form: _Form, saved: tuple, cotangent: TokenSums) -> tuple:
    scale = cotangent.loss
    # in float32: a factor rounded to bfloat16 would bend all of the gradient the same way
    scaled = (None if d is None else (d.astype(jnp.float32) * scale).astype(d.dtype) for d in saved)
    return (*scaled, None, None)


_chunked.defvjp(_forward, _backward, symbolic_zeros=True)


def _unless_empty(skips: bool, part: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives of a chunk, or zeros of its shapes where none of the chunk's targets counts."""
    if not skips:
        return make()
    nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), jax.eval_shape(make))
    return jax.lax.cond((part[2] > 0).any(), make, lambda: nothing)


def _part_sums(form: _Form, x: jax.Array, matrix: jax.Array, targets: jax.Array, counted: jax.Array) -> TokenSums:
    logits = (scores_float32 if form.tied else logits_float32)(x, matrix.astype(x.dtype))
    return token_sums(logits, targets, counted, form.terms)


def _chunks(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """`[B, S, ...]` as `[S / chunk, B, chunk, ...]`, zero-padded: the batch axis keeps its sharding."""
    chunk = min(chunk, arrays[0].shape[1])

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % chunk)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    return tuple(split(x) for x in arrays)


def _named(spec: PartitionSpec) -> tuple[str, ...]:
    """The mesh axes of a partition."""
    return tuple(axis for entry in spec if entry for axis in ((entry,) if isinstance(entry, str) else entry))


def _zeros() -> TokenSums:
    return TokenSums(*(jnp.zeros((), jnp.float32) for _ in TokenSums._fields))
