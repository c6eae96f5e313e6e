"""Units by k-means: fit on the features of the training speech, then write the units of the whole corpus."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from slm_jax.assemblies.phonetic_tokenizer import (
    EncoderFeaturesConfig,
    MFCCFeaturesConfig,
    PhoneticTokenizer,
    unit_spec,
)
from slm_jax.core.config import Config
from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.token_spec import TokenSpec
from slm_jax.core.types import Frames
from slm_jax.data.corpus import RATE_HZ, SPLITS, CorpusConfig
from slm_jax.data.passes import one_behind
from slm_jax.data.shares import this_host, write_shared
from slm_jax.parallel.hosts import is_first_host, on_first_host
from slm_jax.parallel.mesh import MeshConfig
from slm_jax.parallel.sharding import put_batch
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.nearest import assign
from slm_jax.quantizers.postprocess import PostprocessConfig
from slm_jax.token_compression.dedup import dedup_row
from slm_jax.training.feature_passes import (
    Clustered,
    Features,
    extracted,
    layer_features,
    speech_encoder,
    thinned_frames,
)
from slm_jax.training.gradient_stage import GradientStageConfig, described
from slm_jax.training.part_record import RECORD, recorded_configs
from slm_jax.training.parts import check_parts, load_frozen, open_parts, planned_config
from slm_jax.training.pre.frame_sample import FrameSample, Rows
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.token_stage import UNITS, TokenStageConfig, write_spec

TOKENIZER, FIT = "tokenizer", "fit.json"


class LayerOfStageConfig(Config):
    """Layer `layer` of the encoder that stage `stage` trained; 0 is what its first layer reads."""

    stage: str
    layer: int


class LayerOfPartConfig(Config):
    """Layer `layer` of an encoder from elsewhere, such as `hub:microsoft/wavlm-large`, which stays as it is."""

    part: PartSource
    layer: int

    def __post_init__(self) -> None:
        frozen = self.part.frozen and self.part.path.startswith("frozen/")
        require(frozen, "part.path", self.part.path, "nobody trains it: frozen/NAME")


class FrameUnitsConfig(TokenStageConfig):
    """Fits `kmeans` on `fit_frames` frames of `features`, drawn evenly from the training speech.

    Leaves `tokenizer/` and, for every split, a table `units/<split>` with `id`, `units` (one per frame), `runs`
    (without repetitions) and `durations` (frames of each run).
    """

    features: MFCCFeaturesConfig | LayerOfStageConfig | LayerOfPartConfig
    kmeans: KMeansConfig = KMeansConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    fit_frames: int = 200_000

    @property
    def needs(self) -> tuple[str, ...]:
        if isinstance(self.features, LayerOfPartConfig):
            return stages_of(self._parts)
        return (self.features.stage,) if isinstance(self.features, LayerOfStageConfig) else ()

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    @property
    def clusters(self) -> int:
        """Number of units."""
        return self.kmeans.clusters

    def found_spec(self, context: StageContext) -> TokenSpec:
        if isinstance(self.features, MFCCFeaturesConfig):
            return unit_spec(self.clusters, self.features.hop)
        if isinstance(self.features, LayerOfPartConfig):
            return self.tokenizer(context).spec
        folder = context.finished(self.features.stage)
        model, _ = GradientStageConfig.of(folder).model_of(folder)
        return unit_spec(self.clusters, speech_encoder(model, folder.name).hop)

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        if isinstance(self.features, MFCCFeaturesConfig):
            return unit_spec(self.clusters, self.features.hop)
        if isinstance(self.features, LayerOfPartConfig):
            return unit_spec(self.clusters, speech_encoder(planned_config(self.features.part, run), self.name).hop)
        model = described(run, self.features.stage, GradientStageConfig).planned_model(run)
        return unit_spec(self.clusters, speech_encoder(model, self.features.stage).hop)

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        if self._parts:
            open_parts(self._parts, folder)
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
                found = sample.by_row(np.asarray(assign(sample.values, tokenizer.centroids)))
            else:
                batches = extracted(features, params, source, context, f"{self.name} {split}", **this_host())
                found = tokenized(tokenizer, batches)
            write_shared(self.records(folder, split), units_rows(found), len(source))
        made = [TOKENIZER, UNITS, FIT, on_first_host(lambda: write_spec(folder, tokenizer.spec))]
        return [*made, RECORD] if self._parts else made

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

    def clustered(self, context: StageContext) -> Clustered | None:
        if isinstance(self.features, MFCCFeaturesConfig):
            return None
        one = self.features
        name = f"{one.stage if isinstance(one, LayerOfStageConfig) else one.part.source} layer {one.layer}"
        return Clustered(name, *self._extractor(context), self.kmeans, self.postprocess)

    def _extractor(self, context: StageContext) -> tuple[Features, Any]:
        """Which features, and the parameters of the encoder that makes them (None for MFCC)."""
        if isinstance(self.features, MFCCFeaturesConfig):
            return self.features, None
        if isinstance(self.features, LayerOfPartConfig):
            return self._of_part(self.features, context)
        return layer_features(context.finished(self.features.stage), self.features.layer)

    def _of_part(self, features: LayerOfPartConfig, context: StageContext) -> tuple[Features, Any]:
        """The same of an encoder from elsewhere, once the stage has begun."""
        path = features.part.path
        encoder = speech_encoder(recorded_configs(context.run.stage(self.name))[path], self.name)
        params = load_frozen(context.run, self.name)["frozen"][path.removeprefix("frozen/")]
        return EncoderFeaturesConfig(encoder=encoder, layer=features.layer), params

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        return (self.features.part,) if isinstance(self.features, LayerOfPartConfig) else ()


def over_devices(frames: Float[np.ndarray, "T D"]) -> jax.Array:
    """Frames spread over all devices of this host; the few that do not divide are left out."""
    mesh = MeshConfig().make(jax.local_devices())
    kept = len(frames) // mesh.size * mesh.size
    return put_batch({"frames": frames[:kept]}, mesh)["frames"]


def tokenized(
    tokenizer: PhoneticTokenizer, batches: Iterable[tuple[Rows, Frames]]
) -> Iterator[tuple[Rows, list[np.ndarray]]]:
    """Batches with the units of each row."""
    made = ((rows, frames.mask, tokenizer.assign(frames)) for rows, frames in batches)
    for rows, mask, units in one_behind(made):
        counts = np.asarray(mask).sum(1)
        yield rows, [row[:count] for row, count in zip(np.asarray(units), counts, strict=True)]


def units_rows(batches: Iterable[tuple[Rows, list[np.ndarray]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the units table with their places, in the order in which they come."""
    for rows, units in batches:
        for i in np.flatnonzero(rows["valid"]):
            yield int(rows["index"][i]), units_row(rows["id"][i], units[i])


def units_row(name: str, units: np.ndarray) -> dict[str, Any]:
    """One row of the units table."""
    runs, durations = dedup_row(units)
    kept = {"units": units, "runs": runs, "durations": durations}
    return {"id": name, **{key: value.astype(np.int32) for key, value in kept.items()}}
