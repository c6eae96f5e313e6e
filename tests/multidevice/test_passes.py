"""A pass over a corpus on eight forced devices: every device makes its rows, and the features are those of one."""

import os
import subprocess
import sys

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.files import write_wav
from slm_jax.data.corpus import FolderConfig
from slm_jax.training.feature_passes import extracted
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, require_corpus

PROGRAM = """
import sys
from pathlib import Path
import jax
from tests.multidevice.test_passes import features_of

assert jax.device_count() == 8
features_of(Path(sys.argv[1]), "eight.npz")
"""


def features_of(folder, name):
    """The MFCC of every utterance of `folder`, written to a file there."""
    corpus = FolderConfig(path=str(folder / "speech"), processes=1, dev_share=0.0, test_share=0.0)
    context = StageContext(RunFolder(folder / "run"), corpus, folder / "data", progress=False)
    require_corpus(RunConfig(name="none", corpus=corpus, stages=()), context)
    found = {}
    for rows, frames in extracted(MFCCFeaturesConfig(), None, context.source("train"), context, "pass"):
        shards = frames.values.addressable_shards
        found["shards"] = np.asarray([len(shard.data) for shard in shards])
        assert len({shard.device for shard in shards}) == len(shards)
        for i in np.flatnonzero(rows["valid"]):
            found[rows["id"][i]] = np.asarray(frames.values[i])[np.asarray(frames.mask[i])]
    np.savez(folder / name, **found)


def test_eight_devices_equal_one(tmp_path):
    for i in range(18):
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=3000 + 10 * i), 16_000)
    features_of(tmp_path, "one.npz")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    variables = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, eight = np.load(tmp_path / "one.npz"), np.load(tmp_path / "eight.npz")
    assert one["shards"].tolist() == [16] and eight["shards"].tolist() == [2] * 8
    assert len(one.files) == len(eight.files) == 19
    for name in set(one.files) - {"shards"}:
        np.testing.assert_allclose(eight[name], one[name], atol=1e-4)
