"""Passes over a corpus on eight forced devices: every device makes its rows; features and F0 are those of one."""

from pathlib import Path

import numpy as np

from slm_jax.assemblies.phonetic_tokenizer import MFCCFeaturesConfig
from slm_jax.audio.files import write_wav
from slm_jax.audio.pitch import PitchConfig
from slm_jax.data.corpus import FolderConfig
from slm_jax.training.feature_passes import extracted, f0_tracks
from slm_jax.training.run_folder import RunFolder
from slm_jax.training.stages import RunConfig, StageContext, require_corpus


def features_of(folder, name):
    """MFCC and F0 of every utterance of `folder`, written to a file there."""
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
    for _, row, f0_hz in f0_tracks(PitchConfig(hop_s=0.0125), context.source("train"), context, "pass", ("id",)):
        found[f"f0 {row['id']}"] = f0_hz
    np.savez(folder / name, **found)


def hummed(seed):
    """A buzz that glides, of a length of its own."""
    time = np.arange(3000 + 10 * seed) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 5 * seed + 200 * time) / 16_000
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 8)) + 0.01 * noise


def on_eight(folder):
    features_of(Path(folder), "eight.npz")


def test_eight_devices_equal_one(eight, tmp_path):
    for i in range(18):
        write_wav(tmp_path / "speech" / f"{i}.wav", hummed(i), 16_000)
    features_of(tmp_path, "one.npz")
    eight("test_passes:on_eight", str(tmp_path))
    one, many = np.load(tmp_path / "one.npz"), np.load(tmp_path / "eight.npz")
    assert one["shards"].tolist() == [16] and many["shards"].tolist() == [2] * 8
    assert len(one.files) == len(many.files) == 2 * 18 + 1
    assert all((one[f"f0 {i}"] > 0).any() for i in range(18))
    for name in set(one.files) - {"shards"}:
        np.testing.assert_allclose(many[name], one[name], atol=1e-4, rtol=1e-5)
