import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.nn.positions import (
    RopeScaling,
    positions_from_mask,
    positions_in_segments,
    rotate,
    rotation,
    sinusoidal,
)
from tests.optimised import XLAS_OWN


def test_positions_count_real_entries_on_either_side_of_padding():
    mask = jnp.array([[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    assert positions_from_mask(mask).tolist() == [[0, 1, 2, 2], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_positions_start_anew_in_each_segment():
    segments = jnp.array([[1, 1, 2, 2, 2, 0], [3, 1, 1, 1, 4, 4]])
    assert positions_in_segments(segments).tolist() == [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 0, 1]]


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_stand_side_by_side(width):
    table = np.asarray(sinusoidal(jnp.array([0, 2, 5]), width))
    for row, position in zip(table, (0, 2, 5), strict=True):
        angles = [position / 10_000 ** (i / 2) for i in range(3)]
        np.testing.assert_allclose(row[:6], [*np.sin(angles), *np.cos(angles)], atol=1e-6)
    assert table.shape == (3, width)
    assert (table[:, 6:] == 0).all()
    turned = sinusoidal(jnp.array([0, 2, 5]), width, cosines_first=True)
    np.testing.assert_array_equal(turned[:, :6], np.roll(table[:, :6], 3, axis=1))


def test_rotary_scores_depend_on_distance_alone_and_keep_lengths():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(at_q, at_k):
        turned = [rotate(x, rotation(jnp.array([[at]]), 8, 100.0)) for x, at in ((q, at_q), (k, at_k))]
        return float(jnp.vdot(*turned))

    assert score(3, 1) == pytest.approx(score(12, 10), abs=1e-5)
    assert abs(score(3, 1) - score(3, 2)) > 1e-3
    turned = rotate(q, rotation(jnp.array([[7]]), 8, 100.0))
    assert float(jnp.linalg.norm(turned)) == pytest.approx(float(jnp.linalg.norm(q)), rel=1e-5)


def test_linear_scaling_is_slower_by_its_factor():
    plain = rotation(jnp.array([[3]]), 8, 100.0)
    scaled = rotation(jnp.array([[12]]), 8, 100.0, RopeScaling(kind="linear", factor=4.0))
    np.testing.assert_allclose(scaled.cos, plain.cos, atol=1e-5)


def test_unknown_scaling_is_refused():
    with pytest.raises(UserError, match="linear or llama3"):
        RopeScaling(kind="stretched")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA on CPU")
def test_sines_are_made_once_and_not_in_everything_that_is_rotated():
    def rotated(x, positions):
        by = rotation(positions, 8, 10_000.0)
        return rotate(rotate(x, by) @ jnp.ones((8, 8)), by).sum()

    x, positions = jnp.ones((1, 6, 2, 8)), jnp.arange(6)[None]
    lowered = jax.jit(jax.grad(rotated)).lower(x, positions)
    text = lowered.compile(compiler_options=XLAS_OWN).as_text()
    (made,) = [part for part in re.split(r"\n\n", text) if " sine(" in part and " parameter(" in part]
    assert " multiply(" not in made and " concatenate(" not in made
