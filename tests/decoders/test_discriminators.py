"""Discriminators: shapes, spectral norm, gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from slm_jax.core.trees import count_parameters
from slm_jax.decoders.discriminators import DiscriminatorsConfig, halved
from slm_jax.nn.conv import largest_singular_value

SMALL = DiscriminatorsConfig(
    periods=(2, 3), period_widths=(4, 4), scales=2, scale_layers=((4, 5, 1, 1), (8, 5, 2, 2)), spectral_first=True
)


def test_one_judgement_per_period_and_scale_with_finite_gradients():
    samples = jax.random.normal(jax.random.key(0), (2, 101))
    judges = SMALL.make()
    shapes = nn.meta.unbox(jax.eval_shape(judges.init, jax.random.key(1), samples))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)

    def loss(variables):
        judged = judges.apply(variables, samples)
        return sum(jnp.square(scores).sum() for scores, _ in judged), judged

    gradients, judged = jax.jit(jax.grad(loss, has_aux=True))(variables)
    assert len(judged) == 4
    for scores, features in judged:
        assert scores.shape[0] == 2
        assert scores.ndim == 2
        assert len(features) == 3
    params = variables["params"]
    assert "kernel" in params["scale_0"]["conv_0"]
    assert "weight_g" in params["scale_1"]["conv_0"]
    assert all(bool(jnp.isfinite(leaf).all()) and bool(leaf.any()) for leaf in jax.tree.leaves(gradients))


def test_largest_singular_value_against_svd():
    kernel = jax.random.normal(jax.random.key(0), (5, 6, 20))
    exact = np.linalg.svd(np.asarray(kernel).reshape(30, 20), compute_uv=False)[0]
    np.testing.assert_allclose(largest_singular_value(kernel), exact, rtol=0.02)
    gradient = jax.grad(lambda k: largest_singular_value(k, 200))(kernel)
    np.testing.assert_allclose(jnp.vdot(gradient, kernel), exact, rtol=1e-3)  # degree one: Euler's identity


def test_published_sizes():
    shapes = jax.eval_shape(DiscriminatorsConfig().make().init, jax.random.key(0), jnp.zeros((1, 8192)))
    sizes = {name: count_parameters(tree) for name, tree in nn.meta.unbox(shapes)["params"].items()}
    plain = 5 * (1 * 32 + 32 * 128 + 128 * 512 + 512 * 1024 + 1024 * 1024) + 3 * 1024
    biases, lengths = 32 + 128 + 512 + 1024 + 1024 + 1, 32 + 128 + 512 + 1024 + 1024 + 1
    assert all(sizes[f"period_{p}"] == plain + biases + lengths for p in (2, 3, 5, 7, 11))
    assert len(sizes) == 8


def test_halving_counts_the_zeros_beyond_the_ends():
    x = jnp.ones((1, 6, 1))
    np.testing.assert_allclose(halved(x)[0, :, 0], [0.5, 1.0, 1.0, 0.5])
