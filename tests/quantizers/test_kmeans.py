"""k-means: against scikit-learn, and the corners where k-means goes wrong."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs

from slm_jax.core.config import from_json
from slm_jax.core.errors import UserError
from slm_jax.quantizers.kmeans import KMeansConfig, assign, fit_kmeans
from slm_jax.quantizers.nearest import PROGRAM_ROWS


@pytest.fixture(scope="module")
def speechlike() -> np.ndarray:
    """Slowly moving correlated features of very different scales, as MFCC frames are."""
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((3000, 12)).cumsum(0)
    steps -= np.stack([np.convolve(column, np.ones(200) / 200, "same") for column in steps.T], 1)
    mixed = steps @ rng.standard_normal((12, 39)) + 0.3 * rng.standard_normal((3000, 39))
    return (mixed * np.geomspace(20, 0.2, 39)).astype(np.float32)


def near_ties(features: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Frames whose two nearest centroids are equally far in float32 terms."""
    features, centroids = features.astype(np.float64), centroids.astype(np.float64)
    scores = (centroids**2).sum(1) - 2 * features @ centroids.T + (features**2).sum(1, keepdims=True)
    two = np.partition(scores, 1, axis=1)[:, :2]
    return (two[:, 1] - two[:, 0]) < 1e-5 * (features**2).sum(1)


def test_labels_equal_scikit_learn_on_the_same_centroids(speechlike):
    reference = KMeans(30, n_init=1, max_iter=5, random_state=0).fit(speechlike)
    ours = np.asarray(assign(speechlike, reference.cluster_centers_))
    differs = ours != reference.predict(speechlike)
    ties = near_ties(speechlike, reference.cluster_centers_)
    assert ties.mean() < 0.01
    assert not (differs & ~ties).any()


@pytest.mark.parametrize("batch", [None, 1000])
def test_inertia_on_blobs_is_within_two_percent_of_scikit_learn(batch):
    rows, _ = make_blobs(4000, 16, centers=30, random_state=1)
    rows = rows.astype(np.float32)
    reference = KMeans(30, n_init=3, random_state=0).fit(rows).inertia_
    fit = fit_kmeans(KMeansConfig(clusters=30, starts=3, batch=batch), rows)
    assert fit.inertia <= 1.02 * reference
    assert int(fit.counts.sum()) == 4000


@pytest.mark.parametrize("batch", [None, 750])
def test_inertia_on_speechlike_features_is_within_two_percent_of_scikit_learn(speechlike, batch):
    kind = KMeans if batch is None else partial(MiniBatchKMeans, batch_size=batch, max_iter=40)
    reference = kind(30, n_init=2, random_state=0).fit(speechlike).inertia_
    fit = fit_kmeans(KMeansConfig(clusters=30, starts=2, batch=batch, iterations=40), speechlike)
    assert fit.inertia <= 1.02 * reference


def test_reported_inertia_and_counts_belong_to_the_returned_centroids(speechlike):
    fit = fit_kmeans(KMeansConfig(clusters=20, iterations=3), speechlike)
    labels = np.asarray(assign(speechlike, fit.centroids))
    residual = speechlike.astype(np.float64) - np.asarray(fit.centroids, np.float64)[labels]
    np.testing.assert_allclose(fit.inertia, (residual**2).sum(), rtol=1e-5)
    np.testing.assert_array_equal(fit.counts, np.bincount(labels, minlength=20))


@pytest.mark.parametrize("batch", [None, 64])
def test_no_cluster_stays_empty_when_rows_repeat(batch):
    """Most rows are equal, so that several starting centroids coincide and lose all their rows."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([np.zeros((500, 4)), rng.standard_normal((40, 4)) + 5]).astype(np.float32)
    fit = fit_kmeans(KMeansConfig(clusters=8, batch=batch, iterations=30, start_rows=20, candidates=1), rows)
    assert (np.asarray(fit.counts) > 0).all()


def test_same_seed_same_centroids_and_other_seed_other_centroids(speechlike):
    fits = [fit_kmeans(KMeansConfig(clusters=10, iterations=2, seed=seed), speechlike) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(fits[0].centroids, fits[1].centroids)
    assert not np.array_equal(fits[0].centroids, fits[2].centroids)


def test_more_starts_are_never_worse(speechlike):
    once = fit_kmeans(KMeansConfig(clusters=10, iterations=5), speechlike)
    thrice = fit_kmeans(KMeansConfig(clusters=10, iterations=5, starts=3), speechlike)
    assert thrice.inertia <= once.inertia


def test_ties_go_to_the_lowest_index():
    centroids = np.array([[3.0, 0], [1, 0], [-1, 0], [1, 0]], np.float32)
    rows = np.array([[0, 5], [1, 0], [2, 0]], np.float32)
    assert assign(rows, centroids).tolist() == [1, 1, 0]


@pytest.mark.parametrize("clusters", [1, 2, 127, 128, 129, 300, 2053])
def test_equal_centroids_anywhere_give_the_lowest_index(clusters):
    """Every centroid stands twice, far apart in the list, whatever the number that are compared at once."""
    rng = np.random.default_rng(clusters)
    once = rng.standard_normal((clusters, 5)).astype("f")
    order = rng.permutation(clusters)
    rows = once[rng.integers(0, clusters, 40)] + 0.01 * rng.standard_normal((40, 5)).astype("f")
    units = np.asarray(assign(rows, np.concatenate([once, once[order]])))
    assert units.tolist() == ((rows[:, None].astype("d") - once) ** 2).sum(-1).argmin(1).tolist()


@pytest.mark.parametrize("rows", [0, 1, 5, 700, PROGRAM_ROWS, PROGRAM_ROWS + 3])
def test_assign_takes_any_number_of_rows(rows):
    rng = np.random.default_rng(0)  # whole numbers: no rounding, but ties
    features, centroids = (rng.integers(-9, 10, (count, 3)).astype("f") for count in (rows, 7))
    expected = ((features[:, None] - centroids) ** 2).sum(-1).argmin(1) if rows else []
    assert np.asarray(assign(features, centroids)).tolist() == list(expected)


def test_bfloat16_features_are_compared_in_float32():
    """Two centroids that bfloat16 cannot tell apart are told apart."""
    centroids = jnp.array([[100.0], [100.2]], jnp.float32)
    assert assign(jnp.full((1, 1), 100.5, jnp.bfloat16), centroids).tolist() == [1]


def test_progress_sees_falling_inertia(speechlike):
    seen: list[float] = []
    config = KMeansConfig(clusters=10, iterations=4, tolerance=0.0)
    config.make()(speechlike, progress=lambda done, inertia: seen.append(inertia))
    assert len(seen) == 4
    assert seen == sorted(seen, reverse=True)


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(UserError, match="clusters"):
        KMeansConfig(clusters=0)
    with pytest.raises(UserError, match="start_rows"):
        KMeansConfig(clusters=100, start_rows=50)
    with pytest.raises(UserError, match="clusters"):
        fit_kmeans(KMeansConfig(clusters=10), np.zeros((5, 2), np.float32))
    with pytest.raises(UserError, match="features"):
        assign(np.zeros((5, 2), np.float32), np.zeros((5, 3), np.float32))


def test_config_travels_as_json():
    config = KMeansConfig(clusters=7, batch=100)
    assert from_json(config.to_json()) == config


def test_rows_in_host_memory_give_the_same_as_on_the_device(speechlike):
    sizes = []

    def place(rows):
        sizes.append(len(rows))
        return jnp.asarray(rows)

    config = KMeansConfig(clusters=10, iterations=6, start_rows=500, device_rows=700)
    whole = fit_kmeans(config.replace(device_rows=10_000), speechlike)
    pieces = fit_kmeans(config, speechlike, place=place)
    assert max(sizes) <= 700
    np.testing.assert_allclose(pieces.centroids, whole.centroids, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(pieces.inertia, whole.inertia, rtol=1e-4)
    assert int(pieces.counts.sum()) == len(speechlike)


def test_mini_batches_from_host_memory_are_as_good(speechlike):
    config = KMeansConfig(clusters=30, batch=750, iterations=40, start_rows=500, device_rows=700)
    whole = fit_kmeans(config.replace(device_rows=10_000), speechlike)
    assert fit_kmeans(config, speechlike).inertia <= 1.03 * whole.inertia


@pytest.mark.parametrize("batch", [None, 64])
def test_no_cluster_stays_empty_in_host_memory_either(batch):
    rng = np.random.default_rng(3)
    rows = np.concatenate([np.zeros((500, 4)), rng.standard_normal((40, 4)) + 5]).astype(np.float32)
    config = KMeansConfig(clusters=8, batch=batch, iterations=30, start_rows=20, candidates=1, device_rows=100)
    assert (np.asarray(fit_kmeans(config, rows).counts) > 0).all()
