"""A pass over a corpus on eight forced devices: every device makes its rows, and the features are those of one."""

from pathlib import Path

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.files import write_wav
from slm_jax.data.corpus import FolderConfig
from slm_jax.training.feature_passes import extracted
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, require_corpus


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


def on_eight(folder):
    features_of(Path(folder), "eight.npz")


def test_eight_devices_equal_one(eight, tmp_path):
    for i in range(18):
        write_wav(tmp_path / "speech" / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=3000 + 10 * i), 16_000)
    features_of(tmp_path, "one.npz")
    eight("test_passes:on_eight", str(tmp_path))
    one, many = np.load(tmp_path / "one.npz"), np.load(tmp_path / "eight.npz")
    assert one["shards"].tolist() == [16] and many["shards"].tolist() == [2] * 8
    assert len(one.files) == len(many.files) == 19
    for name in set(one.files) - {"shards"}:
        np.testing.assert_allclose(many[name], one[name], atol=1e-4)
