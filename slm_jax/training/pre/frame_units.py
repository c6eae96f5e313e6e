"""Units by k-means: fit on the features of the training speech, then write the units of the whole corpus."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from slm_jax.assemblies.phonetic_tokenizer import EncoderFeaturesConfig, MFCCFeaturesConfig, PhoneticTokenizer
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.types import Frames
from slm_jax.data.corpus import RATE_HZ, SPLITS, CorpusConfig
from slm_jax.data.joined import Subset
from slm_jax.data.lengths import source_lengths
from slm_jax.data.passes import finite_batches
from slm_jax.data.progress import tracked
from slm_jax.data.shares import this_host, write_shared
from slm_jax.objectives.masked_prediction import HubertPretrainingConfig
from slm_jax.parallel.hosts import is_first_host, on_first_host
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import batch_sharding, put_batch, replicated
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.token_compression.dedup import dedup_row
from slm_jax.training.gradient_stage import trained
from slm_jax.training.pre.frame_sample import FrameSample
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import StageConfig, StageContext, require_form

TOKENIZER, UNITS, FIT = "tokenizer", "units", "fit.json"
ROWS = 16
"""Utterances that are encoded at once."""
Features = MFCCFeaturesConfig | EncoderFeaturesConfig


class LayerOfStageConfig(Config):
    """Layer `layer` of the encoder that stage `stage` trained; 0 is what its first layer reads."""

    stage: str
    layer: int


class FrameUnitsConfig(StageConfig):
    """Fits `kmeans` on `fit_frames` frames of `features`, drawn evenly from the training speech.

    Leaves `tokenizer/` and, for every split, a table `units/<split>` with `id`, `units` (one per frame), `runs`
    (without repetitions) and `durations` (frames of each run).
    """

    features: MFCCFeaturesConfig | LayerOfStageConfig
    kmeans: KMeansConfig = KMeansConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    fit_frames: int = 200_000

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.features.stage,) if isinstance(self.features, LayerOfStageConfig) else ()

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    @property
    def clusters(self) -> int:
        """Number of units."""
        return self.kmeans.clusters

    @staticmethod
    def records(folder: StageFolder, split: str) -> Path:
        """The units of a split."""
        return folder.path / UNITS / split

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        features, params = self._extractor(context)
        train = context.source("train")
        fitted, frames = thinned_frames(train, features, self.fit_frames)
        sample = FrameSample(frames + len(fitted))  # the frame counts of two recipes differ by one at most
        if is_first_host():
            sample.fill(extracted(features, params, fitted, context, self.name))
        on_first_host(lambda: self._fit(folder, features, sample))
        tokenizer = PhoneticTokenizer.load(folder.path / TOKENIZER, params)
        for split in SPLITS:
            source = context.source(split)
            if split == "train" and len(fitted) == len(train) and jax.process_count() == 1:
                treated = dataclasses.replace(tokenizer, postprocess=tokenizer.postprocess.done())
                rows = encoded(treated, sample.batches())  # each frame has been treated for the fit
            else:
                batches = extracted(features, params, source, context, f"{self.name} {split}", **this_host())
                rows = encoded(tokenizer, batches)
            write_shared(self.records(folder, split), rows, len(source))
        return [TOKENIZER, UNITS, FIT]

    def _fit(self, folder: StageFolder, features: Features, sample: FrameSample) -> None:
        """Fit on this host's devices and write the tokenizer, which every host then reads; treats the sample."""
        post = self.postprocess.fit(sample.values)
        sample.treat(post)
        fit = fit_kmeans(self.kmeans, sample.values, place=over_devices)
        PhoneticTokenizer(features, None, post, fit.centroids).save(folder.path / TOKENIZER)
        summary = {"inertia": fit.inertia, "passes": fit.passes, "empty": int((np.asarray(fit.counts) == 0).sum())}
        (folder.path / FIT).write_text(json.dumps(summary, indent=1), encoding="utf-8")

    def tokenizer(self, context: StageContext) -> PhoneticTokenizer:
        """The tokenizer of this stage once it is done."""
        _, params = self._extractor(context)
        return PhoneticTokenizer.load(context.finished(self.name).path / TOKENIZER, params)

    def _extractor(self, context: StageContext) -> tuple[Features, Any]:
        """Which features, and the parameters of the encoder that makes them (None for MFCC)."""
        if isinstance(self.features, MFCCFeaturesConfig):
            return self.features, None
        return layer_features(context.finished(self.features.stage), self.features.layer)


def layer_features(folder: StageFolder, layer: int) -> tuple[EncoderFeaturesConfig, Any]:
    """Features of a layer of the encoder that a finished stage trained, and the encoder's parameters."""
    stage, variables = trained(folder)
    model = getattr(stage, "model", None)
    require(isinstance(model, HubertPretrainingConfig), "stage", folder.name, "it did not train a speech encoder")
    return EncoderFeaturesConfig(encoder=model.encoder, layer=layer), variables["params"]["encoder"]


def thinned(source: Any, features: Features, frames: int) -> Subset:
    """Every n-th utterance of `source`, so that about `frames` frames are left; all of a smaller one."""
    return thinned_frames(source, features, frames)[0]


def thinned_frames(source: Any, features: Features, frames: int) -> tuple[Subset, int]:
    """What `thinned` leaves, and how many frames that has."""
    counts = np.asarray(features.frame_count(source_lengths(source, "samples")))
    every = max(1, round(int(counts.sum()) / frames))
    return Subset(source, range(0, len(source), every)), int(counts[::every].sum())


def extracted(
    features: Features, params: Any, source: Any, context: StageContext, name: str, host: int = 0, hosts: int = 1
) -> Iterator[tuple[dict[str, Any], Frames]]:
    """Batches of a pass over one host's share of `source`, with their features.

    A batch has `id`, `index` and `valid` of each row. Its rows are spread over the devices of this host.
    """
    extract, mesh = compiled(features), row_mesh()
    params = jax.device_put(params, replicated(mesh))
    batches = finite_batches(source, context.lengths, ROWS, ("id",), host=host, hosts=hosts)
    for rows in tracked(batches, len(range(host, len(source), hosts)), name, context.progress):
        frames = extract(params, *jax.device_put((rows["samples"], rows["mask"]), batch_sharding(mesh)))
        kept = {name: rows[name] for name in ("id", "index", "valid")}
        yield kept, Frames(frames.values, frames.mask & rows["valid"][:, None])


@lru_cache(maxsize=8)
def compiled(features: Features) -> Callable[..., Frames]:
    """`features.extract`, compiled once for every shape however many passes there are."""
    return jax.jit(features.extract)


def row_mesh() -> Mesh:
    """As many devices of this host as the rows of a batch divide over."""
    devices = jax.local_devices()
    return MeshConfig().make(devices[: math.gcd(ROWS, len(devices))])


def over_devices(frames: Float[np.ndarray, "T D"]) -> jax.Array:
    """Frames spread over all devices of this host; the few that do not divide are left out."""
    mesh = MeshConfig().make(jax.local_devices())
    kept = len(frames) // mesh.size * mesh.size
    return put_batch({"frames": frames[:kept]}, mesh)["frames"]


def encoded(
    tokenizer: PhoneticTokenizer, batches: Iterable[tuple[dict[str, Any], Frames]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the units table with their places, in the order in which they come."""
    for rows, frames in batches:
        units, counts = np.asarray(tokenizer.assign(frames)), np.asarray(frames.mask).sum(1)
        for i in np.flatnonzero(rows["valid"]):
            yield int(rows["index"][i]), units_row(rows["id"][i], units[i, : counts[i]])


def units_row(name: str, units: np.ndarray) -> dict[str, Any]:
    """One row of the units table."""
    runs, durations = dedup_row(units)
    kept = {"units": units, "runs": runs, "durations": durations}
    return {"id": name, **{key: value.astype(np.int32) for key, value in kept.items()}}
