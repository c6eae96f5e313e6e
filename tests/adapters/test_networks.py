"""The adapters with layers of their own: dropout, positions, queries, streams side by side, forms of the stack."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.adapters.chain import ChainConfig
from slm_jax.adapters.joined import JoinedConfig
from slm_jax.adapters.qformer import QFormerAdapterConfig, QFormerConfig
from slm_jax.adapters.transformer import TransformerAdapterConfig
from slm_jax.core.errors import UserError
from slm_jax.core.types import Frames
from tests.contracts import checks

LAYERS = TransformerAdapterConfig(width=5, inner=8, layers=3, heads=2, hidden=12)
TRUNK = QFormerConfig(context_width=6, width=8, layers=2, heads=2, hidden=12, init_scale=0.5)
FRAMES = Frames(jax.random.normal(jax.random.key(0), (2, 9, 6)), jnp.arange(9) < jnp.array([[9], [4]]))


def params_of(config, *args):
    return checks.random_params(config.make(), jax.random.key(1), *args)


@partial(jax.jit, static_argnums=0)
def applied(config, params, *args):
    return config.make().apply({"params": params}, *args)


@pytest.mark.parametrize("config", [LAYERS, QFormerAdapterConfig(width=5, qformer=TRUNK, queries=3)])
def test_dropout_acts_in_training_only(config):
    params = params_of(config, FRAMES)

    @jax.jit
    def trained(key):
        rngs = {"dropout": key}
        return config.make().apply({"params": params}, FRAMES, deterministic=False, rngs=rngs).values

    whole = applied(config, params, FRAMES).values
    first, second = (trained(jax.random.key(k)) for k in (2, 3))
    assert not np.allclose(first, whole)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(applied(config, params, FRAMES).values, whole)


def test_frames_change_places_unless_they_have_positions():
    """Full visibility without positions does not know the order of frames."""
    turned = Frames(FRAMES.values[:1, ::-1], FRAMES.mask[:1])
    straight = Frames(FRAMES.values[:1], FRAMES.mask[:1])
    for config, same in ((LAYERS, True), (LAYERS.replace(sinusoids=True), False)):
        run = partial(applied, config, params_of(config, straight))
        assert np.allclose(run(turned).values[:, ::-1], run(straight).values, atol=1e-5) == same


def test_unrolled_equals_scanned_and_recomputed():
    params = params_of(LAYERS, FRAMES)

    def loss(config, params):
        out = config.make().apply({"params": params}, FRAMES)
        return jnp.square(jnp.where(out.mask[..., None], out.values, 0)).mean()

    scanned = LAYERS.replace(unroll=False, remat=True)
    checks.same_function(partial(loss, LAYERS.replace(unroll=True)), partial(loss, scanned), params)


def test_queries_of_one_group_do_not_see_those_of_another():
    module = TRUNK.make()
    queries = jax.random.normal(jax.random.key(2), (1, 4, 8))
    params = checks.random_params(module, jax.random.key(1), queries, FRAMES.values[:1])

    def moved(group):
        run = jax.jit(partial(module.apply, {"params": params}, context=FRAMES.values[:1], group=group))
        other = queries.at[0, 3, 0].add(1.0)
        return (np.abs(np.asarray(run(other) - run(queries))).max(-1) > 1e-4)[0].tolist()

    assert moved(None) == [True] * 4
    assert moved(2) == [False, False, True, True]
    assert moved(1) == [False, False, False, True]


def test_a_context_of_other_channels_is_refused():
    with pytest.raises(UserError, match="context_width is 6: the context has 5 channels"):
        TRUNK.make().init(jax.random.key(0), jnp.zeros((1, 2, 8)), jnp.zeros((1, 3, 5)))


@pytest.mark.parametrize("lasts", ["longer", "shorter"])
def test_two_streams_are_normalised_apart_and_filled_with_zeros(lasts):
    second = Frames(3 + 2 * jax.random.normal(jax.random.key(3), (2, 6, 4)), jnp.arange(6) < jnp.array([[6], [5]]))
    config = JoinedConfig(widths=(6, 4), lasts=lasts)
    norms = {f"{name}_norm": {"scale": jnp.ones(n), "bias": jnp.ones(n)} for name, n in (("first", 6), ("second", 4))}
    out = applied(config, norms, FRAMES, second)
    assert out.mask.sum(1).tolist() == ([9, 5] if lasts == "longer" else [6, 4])
    assert out.values.shape == (2, 9 if lasts == "longer" else 6, config.width)
    values, both = np.asarray(out.values), np.asarray(FRAMES.mask[:, :6] & second.mask)
    for channels in (slice(0, 6), slice(6, 10)):
        np.testing.assert_allclose(values[:, :6, channels].mean(-1)[both], 1, atol=1e-6)
        np.testing.assert_allclose(values[:, :6, channels].std(-1)[both], 1, atol=1e-3)
    assert not values[1, 4:, :6].any()
    assert not values[:, 6:, 6:].any()


def test_streams_that_do_not_fit_are_refused():
    config = ChainConfig(parts=(JoinedConfig(widths=(6, 4)), LAYERS))
    with pytest.raises(UserError, match="context is 'NoneType'"):
        jax.eval_shape(config.make().init, jax.random.key(0), FRAMES)
    with pytest.raises(UserError, match=r"widths is \(6, 4\): the streams have \(6, 6\) channels"):
        jax.eval_shape(config.make().init, jax.random.key(0), FRAMES, FRAMES)
