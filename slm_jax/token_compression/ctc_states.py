"""The states of CTC: labels with a blank before, between and after them (Graves et al. 2006, section 4.1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

IMPOSSIBLE = -1e30
"""ln 0 as sums and gradients can bear it: differences of two are 0 and no NaN."""


def with_blanks(
    labels: Int[Array, "B L"], label_mask: Bool[Array, "B L"], blank: int
) -> tuple[Int[Array, "B S"], Bool[Array, "B S"]]:
    """Symbol of each of the S = 2 L + 1 states, and which may be entered from the state two before them.

    Even states are blanks, state 2 l + 1 is label l. The blank before a label may be left out where the label before
    it is another one. Padded labels are blanks.
    """
    labels = jnp.where(label_mask, labels, blank)
    symbols = jnp.full((labels.shape[0], 2 * labels.shape[1] + 1), blank, labels.dtype).at[:, 1::2].set(labels)
    two_before = jnp.pad(symbols, ((0, 0), (2, 0)), constant_values=blank)[:, :-2]
    return symbols, (symbols != blank) & (symbols != two_before)


def start_states(batch: int, states: int) -> Float[Array, "B S"]:
    """ln p before the first frame: surely in state 0, from which the first frame stays or goes to the first label."""
    return jnp.full((batch, states), IMPOSSIBLE, jnp.float32).at[:, 0].set(0.0)


def came_from(before: Float[Array, "B S"], may_skip: Bool[Array, "B S"]) -> Float[Array, "3 B S"]:
    """ln p of the frame before, for staying, for one state on and for two states on."""
    padded = jnp.pad(before, ((0, 0), (2, 0)), constant_values=IMPOSSIBLE)
    two = jnp.where(may_skip, padded[:, :-2], IMPOSSIBLE)
    return jnp.stack([before, padded[:, 1:-1], two])


def end_states(label_mask: Bool[Array, "B L"]) -> tuple[Int[Array, "B"], Int[Array, "B"]]:
    """The two states in which a row may end: its last blank and its last label (twice state 0 without labels)."""
    last = 2 * label_mask.sum(1)
    return last, jnp.maximum(last - 1, 0)


def frames_needed(labels: Int[Array, "B L"], label_mask: Bool[Array, "B L"]) -> Int[Array, "B"]:
    """The fewest frames that hold the labels: one each, and one blank between equal neighbours."""
    equal = (labels[:, 1:] == labels[:, :-1]) & label_mask[:, 1:]
    return label_mask.sum(1) + equal.sum(1)


def picked(values: Float[Array, "B S"], state: Int[Array, "B"]) -> Float[Array, "B"]:
    """The value of one state of each row."""
    found: jax.Array = jnp.take_along_axis(values, state[:, None], axis=1)[:, 0]
    return found
