import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from slm_jax.core.errors import UserError
from slm_jax.nn.attention import Attention
from slm_jax.nn.caches import empty_cache, empty_context
from slm_jax.nn.linear import Linear
from slm_jax.nn.stack import Stack, resolve_unroll, unstack, unstack_on_cpu
from slm_jax.nn.visibility import Visibility
from slm_jax.parallel.mesh import MeshConfig
from tests.contracts.checks import random_params


class Accumulating(nn.Module):
    """A block with everything a stack must pass on: weights, a cache, a shared array, dropout, a static argument."""

    @nn.compact
    def __call__(self, x, cache, shift, *, deterministic=True):
        y = nn.tanh(Linear(x.shape[-1], in_names=("embed",), out_names=("mlp",), name="dense")(x) + shift)
        y = nn.Dropout(0.5, name="dropout")(y, deterministic=deterministic)
        return x + y, None if cache is None else cache + y.sum()


X = jax.random.normal(jax.random.key(0), (2, 3, 4))
SHIFT = jnp.full((4,), 0.3)
FORMS = [{"unroll": False}, {"unroll": True}, {"unroll": False, "remat": True}, {"unroll": True, "remat": True}]


def plain(params, depth=3):
    """The same layers in a Python loop."""
    x, outputs, sums = X, [], []
    for i in range(depth):
        dense = params["layers"]["dense"]
        y = jnp.tanh(x @ dense["kernel"][i] + dense["bias"][i] + SHIFT)
        x = x + y
        outputs.append(x)
        sums.append(float(y.sum()))
    return jnp.stack(outputs), sums


@pytest.fixture(scope="module")
def params():
    return random_params(Stack(Accumulating, 3), jax.random.key(1), X, None, (SHIFT,))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_outputs_hidden_states_and_caches(form, params):
    stack = Stack(Accumulating, 3, **form)
    for tree in (params, unstack(params)):
        out = stack.apply({"params": tree}, X, (1.0, 2.0, 3.0), (SHIFT,), collect=True)
        hidden, sums = plain(params)
        np.testing.assert_allclose(out.hidden, hidden, atol=1e-6)
        np.testing.assert_allclose(out.values, hidden[-1], atol=1e-6)
        np.testing.assert_allclose(out.caches, np.add(sums, (1.0, 2.0, 3.0)), atol=1e-5)


class Reading(nn.Module):
    """A layer of a decoder over a context: what it keeps is a pair of caches."""

    @nn.compact
    def __call__(self, x, caches, sees, context, real):
        own, other = (None, None) if caches is None else caches
        y, own = Attention(2, 2, name="attention")(x, mask=sees, cache=own)
        y, other = Attention(2, 2, name="reading")(x + y, context, mask=real, cache=other)
        return x + y, None if caches is None else (own, other)


@pytest.mark.parametrize("unroll", [False, True])
def test_caches_of_a_sequence_and_of_a_context_go_through_the_layers_together(unroll):
    """The context is read with the first piece and kept; later pieces come without it."""
    stack, context = Stack(Reading, 3, unroll=unroll), jax.random.normal(jax.random.key(2), (2, 5, 6))
    real = jnp.arange(5) < jnp.array([5, 2])[:, None]
    params = {"params": random_params(stack, jax.random.key(1), X, None, (Visibility(), context, real))}
    whole = jax.jit(lambda x: stack.apply(params, x, None, (Visibility(), context, real)).values)
    pair = empty_cache(2, 3, 2, 2, jnp.float32), empty_context(2, 5, 2, 2, jnp.float32)
    first = jax.jit(lambda x, caches: stack.apply(params, x, caches, (None, context, real))[:2])
    later = jax.jit(lambda x, caches: stack.apply(params, x, caches, (None, None, None))[:2])
    y, caches = first(X[:, :1], (pair,) * 3)
    rest, caches = later(X[:, 1:], caches)
    np.testing.assert_allclose(jnp.concatenate([y, rest], axis=1), whole(X), atol=1e-5)
    assert [own.length.tolist() for own, _ in caches] == [[3, 3]] * 3
    assert all(other.mask.tolist() == real.tolist() for _, other in caches)


def test_stops_after_the_wanted_depth(params):
    out = Stack(Accumulating, 3, unroll=False).apply({"params": params}, X, None, (SHIFT,), depth=2, collect=True)
    np.testing.assert_allclose(out.hidden, plain(params, 2)[0], atol=1e-6)
    with pytest.raises(UserError, match="depth"):
        Stack(Accumulating, 3).apply({"params": params}, X, None, (SHIFT,), depth=4)


@pytest.mark.parametrize("unroll", [False, True])
def test_layers_draw_different_dropout(unroll, params):
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:1], leaf.shape), params)
    stack = Stack(Accumulating, 3, unroll=unroll)
    rngs = {"dropout": jax.random.key(5)}
    out = stack.apply({"params": same}, X, None, (SHIFT,), deterministic=False, collect=True, rngs=rngs)
    added = np.diff(np.concatenate([np.asarray(X)[None], np.asarray(out.hidden)]), axis=0) == 0
    assert added.any()
    assert (added[0] != added[1]).any()


def test_weights_are_named_after_their_layer_axis():
    variables = Stack(Accumulating, 3).init(jax.random.key(1), X, None, (SHIFT,))
    assert variables["params"]["layers"]["dense"]["kernel"].names == ("layers", "embed", "mlp")
    kernels = meta.unbox(variables)["params"]["layers"]["dense"]["kernel"]
    assert np.abs(np.asarray(kernels[0] - kernels[1])).max() > 0.01


@pytest.mark.parametrize("unroll", [False, True])
def test_interceptors_reach_the_layers_in_both_forms(unroll, params):
    """LoRA wraps from outside: a form that hid its layers would drop it in silence."""

    def double(call, args, kwargs, context):
        y = call(*args, **kwargs)
        return 2.0 * y if isinstance(context.module, Linear) and context.method_name == "__call__" else y

    with nn.intercept_methods(double):
        out = Stack(Accumulating, 3, unroll=unroll).apply({"params": params}, X, None, (SHIFT,))
    doubled = jax.tree.map(lambda leaf: 2.0 * leaf, params)
    np.testing.assert_allclose(out.values, plain(doubled)[0][-1], atol=1e-6)


def test_auto_unrolls_shallow_stacks_and_a_wrong_setting_is_refused():
    assert resolve_unroll("auto", 2)
    assert not resolve_unroll("auto", 96)
    with pytest.raises(UserError, match="unroll"):
        resolve_unroll("sometimes", 2)


def test_one_cpu_device_cuts_what_nobody_trains(params):
    one = MeshConfig().make(jax.devices()[:1])
    assert set(unstack_on_cpu(params, one)["layers"]) == {"0", "1", "2"}
    assert unstack_on_cpu(None, one) is None
