"""The contracts of `slm_jax.core.contracts` as functions that any part's tests can call.

Every check takes plain functions on arrays, so that it fits modules, algorithms and whole systems alike:
`whole(values, mask) -> outputs`, `step(values, mask, state) -> (outputs, state)`, `loss(params) -> scalar`. Arrays
have the batch and time as their first two axes; masks are True where the content is real. Where outputs have another
rate than inputs, `real(mask)` says which of them are real.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

Whole = Callable[[Any, Any], Any]
Step = Callable[[Any, Any, Any], tuple[Any, Any]]
Real = Callable[[Any], Any]


def same_rate(mask: Any) -> Any:
    """One output for each input."""
    return mask


def random_params(module: Any, key: jax.Array, *args: Any, scale: float = 0.3, **kwargs: Any) -> Any:
    """Parameters of a module with every leaf drawn anew, biases and norm scales too: no weight hides by being 0.

    Norm scales lie around 1 and biases are smaller than the rest, since constants would otherwise drown what is heard.
    """
    shapes = meta.unbox(jax.eval_shape(lambda: module.init(key, *args, **kwargs)))["params"]
    # NumPy draws at once what XLA would compile for seconds.
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def draw(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        centre, spread = {"scale": (1.0, scale), "bias": (0.0, scale / 3)}.get(name, (0.0, scale))
        return jnp.asarray(centre + spread * generator.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def assert_close(actual: Any, wanted: Any, tolerance: float, where: Any = None) -> None:
    """Largest difference within `tolerance` times the size of what is wanted, over the entries marked in `where`."""
    actual, wanted = np.asarray(actual, np.float32), np.asarray(wanted, np.float32)
    assert actual.shape == wanted.shape, (actual.shape, wanted.shape)
    if where is not None:
        where = np.asarray(where)
        actual, wanted = actual[where], wanted[where]
    assert actual.size > 0, "nothing to compare"
    assert np.isfinite(wanted).all(), "the reference holds NaN or Inf"
    scale = max(1.0, float(np.abs(wanted).max()))
    difference = float(np.abs(actual - wanted).max())
    assert difference <= tolerance * scale, f"differs by {difference:.3g}, at a scale of {scale:.3g}"


def stepwise_equals_whole(
    whole: Whole,
    step: Step,
    state: Any,
    values: Any,
    mask: Any,
    sizes: Sequence[int] = (1,),
    tolerance: float = 1e-5,
    real: Real = same_rate,
) -> Any:
    """Fed piece by piece (`sizes` in turn, over and over), a layer gives what it gives at once. Returns the state."""
    wanted, outputs, start, turn = whole(values, mask), [], 0, 0
    while start < values.shape[1]:
        stop = min(start + sizes[turn % len(sizes)], values.shape[1])
        y, state = step(values[:, start:stop], mask[:, start:stop], state)
        outputs.append(y)
        start, turn = stop, turn + 1
    assert_close(jnp.concatenate(outputs, axis=1), wanted, tolerance, where=real(mask))
    return state


def masked_rows_keep_state(step: Step, state: Any, values: Any, tolerance: float = 1e-5, size: int = 1) -> None:
    """A row whose step (of `size` frames) is masked behaves afterwards as if that step had never come."""
    batch = values.shape[0]
    held = jnp.arange(batch) % 2 == 0
    first, middle, last = (values[:, i * size : (i + 1) * size] for i in range(3))
    everyone = jnp.ones((batch, size), bool)
    _, before = step(first, everyone, state)
    _, mixed = step(middle, everyone & ~held[:, None], before)
    _, moved = step(middle, everyone, before)
    y, _ = step(last, everyone, mixed)
    waited, _ = step(last, everyone, before)
    went, _ = step(last, everyone, moved)
    assert_close(y[held], waited[held], tolerance)
    assert_close(y[~held], went[~held], tolerance)
    assert float(np.abs(np.asarray(waited - went)).max()) > 100 * tolerance, "the middle frame has no effect at all"


def reset_forgets(
    step: Step, reset: Callable[[Any, Any], Any], state: Any, values: Any, tolerance: float = 1e-5, size: int = 1
) -> None:
    """After `reset` a row is as new, and the other rows are as they were."""
    batch = values.shape[0]
    rows = jnp.arange(batch) % 2 == 0
    everyone = jnp.ones((batch, size), bool)
    first, second = values[:, :size], values[:, size : 2 * size]
    _, used = step(first, everyone, state)
    y, _ = step(second, everyone, reset(used, rows))
    fresh, _ = step(second, everyone, state)
    kept, _ = step(second, everyone, used)
    assert_close(y[rows], fresh[rows], tolerance)
    assert_close(y[~rows], kept[~rows], tolerance)


def padding_has_no_effect(
    whole: Whole, values: Any, mask: Any, garbage: Any, tolerance: float = 1e-6, real: Real = same_rate
) -> None:
    """What stands in masked entries does not reach the real ones."""
    assert not np.asarray(mask).all(), "nothing is padded"
    kept = jnp.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, garbage)
    assert_close(whole(kept, mask), whole(values, mask), tolerance, where=real(mask))


def batched_equals_single(
    whole: Whole, values: Any, mask: Any, tolerance: float = 1e-5, real: Real = same_rate
) -> None:
    """Every right-padded row gives what it gives alone, without padding."""
    batched, lengths = whole(values, mask), np.asarray(real(mask)).sum(1)
    for row, length in enumerate(np.asarray(mask).sum(1)):
        alone = whole(values[row : row + 1, :length], jnp.ones((1, length), bool))
        assert_close(batched[row, : lengths[row]], alone[0], tolerance)


def jit_equals_eager(function: Callable, *args: Any, tolerance: float = 1e-5) -> None:
    """Compiled and interpreted, the same result."""
    with jax.disable_jit():
        eager = function(*args)
    jax.tree.map(lambda a, b: assert_close(a, b, tolerance), jax.jit(function)(*args), eager)


def same_function(first: Callable, second: Callable, params: Any, tolerance: float = 1e-5) -> None:
    """Two forms of `loss(params)`, such as scan and unroll, agree in value and in every gradient."""
    (value, gradients), (wanted, wanted_gradients) = (jax.jit(jax.value_and_grad(f))(params) for f in (first, second))
    assert_close(value, wanted, tolerance)
    jax.tree.map(lambda a, b: assert_close(a, b, tolerance), gradients, wanted_gradients)


def gradients_are_finite(loss: Callable, params: Any, without: Sequence[str] = ()) -> None:
    """Every gradient is finite, and none is zero all over but for leaves whose path holds a word of `without`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(np.asarray(leaf)).all(), f"gradient of {name}"
        if not any(word in name for word in without):
            assert np.abs(np.asarray(leaf)).max() > 0, f"{name} has no effect"


def runs_in_bfloat16(
    low: Whole, full: Whole, values: Any, mask: Any, tolerance: float = 0.1, real: Real = same_rate
) -> None:
    """Finite in bfloat16, padding included, and near float32 on real entries."""
    y = low(values, mask)
    assert np.isfinite(np.asarray(y, np.float32)).all()
    assert_close(y, full(values, mask), tolerance, where=real(mask))


def measured_reach(whole: Callable, values: Any, at: int) -> tuple[int, int]:
    """First and last input frame that reach output frame `at` of a layer on float values `[1, T, D]`."""
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(whole(x)[:, at]))))(values)
    reached = np.flatnonzero(np.abs(np.asarray(gradient)).sum((0, 2)) > 0)
    return int(reached[0]), int(reached[-1])
