"""DTW on the device against dynamic programming in float64, and against every path of tiny cases."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.dtw import DISTANCES, dtw, pair_distances
from tests.evaluation.slow_abx import frame_distances, slow_dtw


def drawn(seed, sizes, width=5, positive=False):
    rng = np.random.default_rng(seed)
    items = [rng.normal(size=(size, width)).astype(np.float32) for size in sizes]
    return [np.exp(one) / np.exp(one).sum(-1, keepdims=True) for one in items] if positive else items


def best_of_all_paths(distances):
    """The smallest sum over all paths, and the lengths of the paths that have it."""

    @cache
    def to(i, j):
        if i == j == 0:
            return ((distances[0, 0], 1),)
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return tuple((cost + distances[i, j], n + 1) for a, b in steps if a >= 0 and b >= 0 for cost, n in to(a, b))

    paths = to(distances.shape[0] - 1, distances.shape[1] - 1)
    least = min(cost for cost, _ in paths)
    return least, {n for cost, n in paths if np.isclose(cost, least)}


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(dtw)


def test_every_path_of_tiny_cases(compiled):
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 4), (4, 1), (2, 3), (4, 4), (3, 2), (4, 2), (3, 4)]
    distances = rng.uniform(size=(len(sizes), 4, 4)).astype(np.float32)
    distances[5] = 1.0  # all paths of one length cost the same: the diagonal is the shortest
    n, m = np.array(sizes, np.int32).T
    found = np.asarray(compiled(jnp.asarray(distances), n, m))
    for row, (rows, columns) in enumerate(sizes):
        least, lengths = best_of_all_paths(distances[row, :rows, :columns])
        assert any(found[row] == pytest.approx(least / length, rel=1e-6) for length in lengths)
        assert found[row] == pytest.approx(slow_dtw(distances[row, :rows, :columns]), rel=1e-6)


def test_where_steps_cost_the_same_the_path_is_that_of_the_reference(compiled):
    """Whole numbers: many ways cost the same and differ in length, and every sum is exact."""
    rng = np.random.default_rng(1)
    distances = rng.integers(0, 3, (64, 6, 6)).astype(np.float32)
    n, m = rng.integers(1, 7, (2, 64)).astype(np.int32)
    found = np.asarray(compiled(jnp.asarray(distances), n, m))
    slow = [slow_dtw(one[:rows, :columns]) for one, rows, columns in zip(distances, n, m, strict=True)]
    np.testing.assert_allclose(found, slow, rtol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_of_all_lengths_equal_the_oracle(distance):
    items = drawn(2, [1, 3, 8, 9, 15, 20], positive="kl" in distance)
    pairs = np.array([(a, b) for a in range(6) for b in range(6) if a != b])
    found = pair_distances(items, pairs, distance)
    slow = [slow_dtw(frame_distances(items[a], items[b], distance)) for a, b in pairs]
    np.testing.assert_allclose(found, slow, atol=2e-6, rtol=2e-5)
    turned = pair_distances(items, pairs[:, ::-1], distance)
    assert np.allclose(found, turned, atol=1e-6) is (distance != "kl")


def test_frames_of_zeros_are_far_from_all_but_each_other():
    items = [np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)[:1], np.zeros((1, 3), np.float32)]
    found = pair_distances(items, np.array([(0, 1), (0, 2), (1, 1)]))
    assert found.tolist() == [1.0, 0.0, 0.0]


def test_errors():
    with pytest.raises(UserError, match="angular, euclidean"):
        pair_distances(drawn(0, [2]), np.array([(0, 0)]), "cosine")
    with pytest.raises(UserError, match="at least"):
        pair_distances([np.zeros((0, 3), np.float32)], np.array([(0, 0)]))
    assert pair_distances(drawn(0, [2]), np.zeros((0, 2), int)).shape == (0,)
