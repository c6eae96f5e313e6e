"""A stack whose layers follow a pattern: two recurrent blocks and one with attention, over and over."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import empty_ring
from slm_jax.nn.linear import Linear
from slm_jax.nn.stack import Stack, unstack
from slm_jax.nn.visibility import Visibility
from tests.contracts.checks import random_params


class Averaging(nn.Module):
    """A recurrent block: its cache is a running average of what went through."""

    @nn.compact
    def __call__(self, x, cache, sees, *, deterministic=True):
        start = jnp.zeros(x[:, 0].shape) if cache is None else cache
        y = Linear(x.shape[-1], in_names=("embed",), out_names=("mlp",), name="dense")(x)
        last, means = jax.lax.scan(lambda h, y: (0.5 * (h + y), 0.5 * (h + y)), start, jnp.swapaxes(y, 0, 1))
        y = nn.Dropout(0.5, name="dropout")(jnp.tanh(jnp.swapaxes(means, 0, 1)), deterministic=deterministic)
        return x + y, None if cache is None else last


class Attending(nn.Module):
    """A block with attention: its cache is a ring."""

    @nn.compact
    def __call__(self, x, cache, sees, *, deterministic=True):
        y, cache = Attention(2, 2, name="attention")(x, mask=sees, cache=cache)
        return x + y, cache


PATTERN, LAYERS, KINDS = (Averaging, Averaging, Attending), 8, "aaraaraa"
X, SEES = jax.random.normal(jax.random.key(0), (2, 6, 4)), Visibility(window=3)
FORMS = [{"unroll": False}, {"unroll": True}, {"unroll": False, "remat": True}, {"unroll": True, "remat": True}]


@pytest.fixture(scope="module")
def params():
    return random_params(Stack(PATTERN, LAYERS), jax.random.key(1), X, None, (SEES,))


def layer(params, i):
    """The parameters of layer i where they lie: two groups of three, then two more."""
    group, place = divmod(i, 3)
    if group == 2:
        return params["rest"][f"block_{place}"]
    return jax.tree.map(lambda leaf: leaf[group], params["groups"]["layers"][f"block_{place}"])


def plain(params):
    """The output of every layer, one after the other."""
    x, outputs = X, []
    for i in range(LAYERS):
        x, _ = PATTERN[i % 3]().apply({"params": layer(params, i)}, x, None, SEES)
        outputs.append(x)
    return jnp.stack(outputs)


def caches():
    return tuple(empty_ring(2, 3, 2, 2, jnp.float32) if kind == "r" else jnp.zeros((2, 4)) for kind in KINDS)


def differentiated(run, params):
    """The outputs of all layers, and the gradients of their squares."""

    def loss(params):
        hidden = run(params)
        return jnp.square(hidden).sum(), hidden

    (_, hidden), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return hidden, gradients


@pytest.fixture(scope="module")
def wanted(params):
    return differentiated(plain, params)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_layers_one_after_the_other_with_their_gradients(form, params, wanted):
    stack = Stack(PATTERN, LAYERS, **form)

    def run(params):
        return stack.apply({"params": params}, X, None, (SEES,), collect=True).hidden

    hidden, gradients = differentiated(run, params)
    np.testing.assert_allclose(hidden, wanted[0], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradients, wanted[1])


@pytest.mark.parametrize("unroll", [False, True])
def test_caches_come_in_the_order_of_the_layers_and_are_of_each_layers_kind(unroll, params, wanted):
    stack = Stack(PATTERN, LAYERS, unroll=unroll)
    for tree in (params, unstack(params)):
        step = jax.jit(lambda x, state, tree=tree: stack.apply({"params": tree}, x, state, (None,))[:2])
        state, pieces = caches(), []
        for t in range(0, 6, 2):
            y, state = step(X[:, t : t + 2], state)
            pieces.append(y)
        np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), wanted[0][-1], atol=1e-5)
        assert jax.tree.structure(state) == jax.tree.structure(caches())
        assert state[2].length.tolist() == state[5].length.tolist() == [6, 6]


def test_trees_of_a_pattern_and_of_a_single_block():
    boxed = jax.eval_shape(lambda: Stack(PATTERN, LAYERS).init(jax.random.key(1), X, None, (SEES,)))["params"]
    assert boxed["groups"]["layers"]["block_1"]["dense"]["kernel"].names == ("layers", "embed", "mlp")
    shapes = jax.tree.map(lambda leaf: leaf.shape, meta.unbox(boxed))
    assert shapes["groups"]["layers"]["block_0"]["dense"] == {"kernel": (2, 4, 4), "bias": (2, 4)}
    assert shapes["rest"] == {f"block_{i}": {"dense": {"kernel": (4, 4), "bias": (4,)}} for i in range(2)}
    cut = jax.eval_shape(unstack, meta.unbox(boxed))
    assert sorted(cut["groups"]["layers"]) == ["0", "1"] and cut["rest"]["block_0"]["dense"]["kernel"].shape == (4, 4)

    def tree(block, layers):
        made = jax.eval_shape(lambda: Stack(block, layers).init(jax.random.key(1), X, None, (SEES,)))
        return jax.tree.map(lambda leaf: leaf.shape, meta.unbox(made)["params"])

    assert tree((Averaging,), 3) == tree(Averaging, 3) == {"layers": {"dense": {"kernel": (3, 4, 4), "bias": (3, 4)}}}
    assert sorted(tree(PATTERN, 3)) == ["groups"] and sorted(tree(PATTERN, 2)) == ["rest"]


def test_runs_up_to_the_end_of_a_group(params, wanted):
    stack = Stack(PATTERN, LAYERS, unroll=False)
    run = jax.jit(lambda p: stack.apply({"params": p}, X, None, (SEES,), depth=3, collect=True))
    np.testing.assert_allclose(run(params).hidden, wanted[0][:3], atol=1e-5)
    with pytest.raises(UserError, match="depth is 4: must end with a group of 3"):
        stack.apply({"params": params}, X, None, (SEES,), depth=4)


@pytest.mark.parametrize("unroll", [False, True])
def test_layers_draw_different_dropout(unroll, params):
    rngs = {"dropout": jax.random.key(5)}
    given = {"deterministic": False, "collect": True, "rngs": rngs}
    stack = Stack(PATTERN, LAYERS, unroll=unroll)
    out = jax.jit(lambda p: stack.apply({"params": p}, X, None, (SEES,), **given))(params)
    kept = np.diff(np.concatenate([np.asarray(X)[None], np.asarray(out.hidden)]), axis=0) == 0
    recurrent = [kept[i] for i, kind in enumerate(KINDS) if kind == "a"]
    assert all(0.2 < drop.mean() < 0.8 for drop in recurrent)
    assert len({drop.tobytes() for drop in recurrent}) == 6


@pytest.mark.parametrize("unroll", [False, True])
def test_interceptors_reach_the_blocks(unroll, params):
    """LoRA wraps from outside, and names its targets by path."""
    paths = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, Linear) and context.method_name == "__call__":
            paths.append("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        stack = Stack(PATTERN, LAYERS, unroll=unroll)
        jax.eval_shape(lambda p: stack.apply({"params": p}, X, None, (SEES,)), params)
    assert {"groups/layers/block_1/dense", "groups/layers/block_2/attention/query", "rest/block_0/dense"} <= set(paths)
