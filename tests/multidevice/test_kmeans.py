"""k-means over eight forced devices equals k-means on one."""

import jax
import numpy as np

from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans


def on_eight(rows, out):
    rows = jax.device_put(np.load(rows), jax.NamedSharding(MeshConfig().make(), jax.P("data")))
    assert len(rows.sharding.device_set) == 8
    result = {}
    for name, batch in (("full", None), ("mini", 512)):
        fit = fit_kmeans(KMeansConfig(clusters=20, iterations=10, batch=batch), rows)
        result[name], result[name + "_inertia"] = np.asarray(fit.centroids), fit.inertia
    np.savez(out, **result)


def test_eight_devices_equal_one(eight, tmp_path):
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((20, 13)) * 4)[rng.integers(0, 20, 4096)] + rng.standard_normal((4096, 13))
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    eight("test_kmeans:on_eight", str(tmp_path / "rows.npy"), str(tmp_path / "out.npz"))
    spread = np.load(tmp_path / "out.npz")
    for name, batch in (("full", None), ("mini", 512)):
        alone = fit_kmeans(KMeansConfig(clusters=20, iterations=10, batch=batch), rows.astype(np.float32))
        np.testing.assert_allclose(spread[f"{name}_inertia"], alone.inertia, rtol=1e-5)
        np.testing.assert_allclose(spread[name], alone.centroids, atol=1e-4)
