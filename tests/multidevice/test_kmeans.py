"""k-means over eight forced devices equals k-means on one."""

import os
import subprocess
import sys

import numpy as np

from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans

PROGRAM = """
import sys
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans

assert jax.device_count() == 8
rows = np.load(sys.argv[1])
mesh = MeshConfig().make()
rows = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
assert len(rows.sharding.device_set) == 8
result = {}
for name, batch in (("full", None), ("mini", 512)):
    fit = fit_kmeans(KMeansConfig(clusters=20, iterations=10, batch=batch), rows)
    result[name], result[name + "_inertia"] = np.asarray(fit.centroids), fit.inertia
np.savez(sys.argv[2], **result)
"""


def test_eight_devices_equal_one(tmp_path):
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((20, 13)) * 4)[rng.integers(0, 20, 4096)] + rng.standard_normal((4096, 13))
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "rows.npy"), str(tmp_path / "out.npz")]
    variables = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    spread = np.load(tmp_path / "out.npz")
    for name, batch in (("full", None), ("mini", 512)):
        alone = fit_kmeans(KMeansConfig(clusters=20, iterations=10, batch=batch), rows.astype(np.float32))
        np.testing.assert_allclose(spread[f"{name}_inertia"], alone.inertia, rtol=1e-5)
        np.testing.assert_allclose(spread[name], alone.centroids, atol=1e-4)
