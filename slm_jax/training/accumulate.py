"""Gradients of a loss of several terms, exact however the batch is cut into micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters import partial_eval

from slm_jax.core.contracts import Batch, Loss, Term, Variables

Differentiated = Callable[[Variables, Batch, jax.Array], Loss]
"""An objective of the leaves that are differentiated, a (micro-)batch and a key."""
Pair = tuple[jax.Array, jax.Array]


def accumulated(
    objective: Differentiated, owned: Variables, micro: Batch, rng: jax.Array, unroll: bool
) -> tuple[Variables, Loss, Pair]:
    """Gradients, the summed loss, and its (weighed sum, count), over micro-batches [A, B / A, ...].

    The loss is that sum divided by that count. Each term is divided by what it counts in the whole batch. With several
    terms and micro-batches those counts are found first, at the price of what they depend on, which is next to nothing
    when they come from masks.
    """
    several = jax.tree.leaves(micro)[0].shape[0] > 1
    known = _known_before(objective, owned, micro, rng, unroll) if several else None

    def weighed(owned: Variables, batch: Batch, key: jax.Array) -> tuple[jax.Array, Loss]:
        loss = objective(owned, batch, key)
        return weighed_sum(loss.terms, relative(loss.terms if known is None else known)), loss

    def one(batch: Batch, key: jax.Array) -> tuple[Variables, Loss]:
        (_, loss), grads = jax.value_and_grad(weighed, has_aux=True)(owned, batch, key)
        return grads, loss

    grads, loss = _summed(one, micro, rng, unroll)
    if known is not None:  # weights are no sums
        loss = loss._replace(terms={n: term._replace(weight=known[n].weight) for n, term in loss.terms.items()})
    count = largest_count(loss.terms)
    divisor = jnp.where(count > 0, count, jnp.inf)
    grads = jax.tree.map(lambda g: g / divisor.astype(g.dtype), grads)
    return grads, loss, (weighed_sum(loss.terms, relative(loss.terms)), count)


def weighed_sum(terms: dict[str, Term], factors: dict[str, Any]) -> jax.Array:
    """sum_k factor_k total_k, float32."""
    return sum((factors[n] * term.total for n, term in terms.items()), jnp.zeros(())).astype(jnp.float32)


def largest_count(terms: dict[str, Term]) -> jax.Array:
    """What the term that counted most counted, float32."""
    return jnp.stack([jnp.asarray(term.count, jnp.float32) for term in terms.values()]).max()


def relative(terms: dict[str, Term]) -> dict[str, Any]:
    """Factor of each term's sum: weight x largest count / count, 0 where nothing was counted.

    That of a loss of one term is its weight: it is differentiated as the plain sum and divided at the end.
    """
    if len(terms) == 1:
        return {name: term.weight for name, term in terms.items()}
    largest = largest_count(terms)
    counts = {name: jnp.asarray(term.count, jnp.float32) for name, term in terms.items()}
    shares = {n: jnp.where(c > 0, largest / jnp.where(c > 0, c, 1.0), 0.0) for n, c in counts.items()}
    return {name: jax.lax.stop_gradient(terms[name].weight * share) for name, share in shares.items()}


def _known_before(
    objective: Differentiated, owned: Variables, micro: Batch, rng: jax.Array, unroll: bool
) -> dict[str, Term]:
    """Counts of all terms over the whole batch (of a single one: none), and their weights."""

    def counts(owned: Variables, batch: Batch, key: jax.Array) -> dict[str, Term]:
        terms = objective(owned, batch, key).terms
        none = jnp.zeros(())
        return {n: Term(none, none if len(terms) == 1 else term.count, term.weight) for n, term in terms.items()}

    part = jax.tree.map(lambda value: value[0], micro)
    needed = pruned(counts, owned, part, rng)
    weights = {name: term.weight for name, term in needed(owned, part, jax.random.fold_in(rng, 0)).items()}
    summed = _summed(lambda batch, key: needed(owned, batch, key), micro, rng, unroll)
    return {name: term._replace(weight=weights[name]) for name, term in summed.items()}


def pruned(function: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """`function` for arguments such as `args`, without the operations that its result does not depend on.

    XLA would drop them too, but whoever counts the operations of a traced program, or compiles it, meets them before.
    """
    traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, used = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.out_avals))
    run = jaxpr_as_fun(ClosedJaxpr(jaxpr, traced.consts))

    def needed(*args: Any) -> Any:
        leaves = [leaf for leaf, keep in zip(jax.tree.leaves(args), used, strict=True) if keep]
        return jax.tree.unflatten(jax.tree.structure(shape), run(*leaves))

    return needed


def _summed(function: Callable[[Batch, jax.Array], Any], micro: Batch, rng: jax.Array, unroll: bool) -> Any:
    """Sum of `function(batch, key)` over the micro-batches, written out or by a scan."""

    def pick(index: int) -> tuple[Batch, jax.Array]:
        return jax.tree.map(lambda value: value[index], micro), jnp.asarray(index, jnp.int32)

    def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        batch, index = part
        return jax.tree.map(jnp.add, total, function(batch, jax.random.fold_in(rng, index))), None

    parts = jax.tree.leaves(micro)[0].shape[0]
    batch, index = pick(0)
    total = function(batch, jax.random.fold_in(rng, index))
    if unroll or parts == 1:
        for place in range(1, parts):
            total, _ = add(total, pick(place))
        return total
    rest = jax.tree.map(lambda value: value[1:], micro)
    return jax.lax.scan(add, total, (rest, jnp.arange(1, parts)))[0]
