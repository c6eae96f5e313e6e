"""Style tokens of a corpus: classes or clusters of windows of a second, for language models (SpiRit-LM)."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from slm_jax.assemblies.phonetic_tokenizer import RATE_HZ
from slm_jax.assemblies.style_tokenizer import StyleTokenizer, style_spec
from slm_jax.core.errors import require
from slm_jax.core.part_source import PartSource, stages_of
from slm_jax.core.token_spec import TokenSpec
from slm_jax.data.corpus import SPLITS, CorpusConfig
from slm_jax.data.passes import one_behind
from slm_jax.data.shares import this_host, write_shared
from slm_jax.encoders.ssl_classifier import SSLClassifierConfig
from slm_jax.parallel.hosts import is_first_host, on_first_host
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.training.feature_passes import spread
from slm_jax.training.part_record import RECORD, recorded_configs
from slm_jax.training.parts import check_parts, load_frozen, open_parts, planned_config
from slm_jax.training.run_folder import StageFolder
from slm_jax.training.stages import RunConfig, StageContext, require_form
from slm_jax.training.token_stage import UNITS, TokenStageConfig, write_spec

CENTROIDS = "centroids.npz"
PART = "frozen/classifier"


class StyleTokensConfig(TokenStageConfig):
    """A token for each window of the classifier in `source`: `stage:NAME` of this run, a folder, or `hub:NAME`.

    `kmeans` None: the class that it hears, as released; else the cluster of the window's mean, of clusters that are fit
    on the training speech. `window` (frames) takes the place of the classifier's own.
    """

    source: str
    kmeans: KMeansConfig | None = None
    window: int | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return stages_of(self._parts)

    def check_outside(self, begun: StageFolder | None) -> None:
        check_parts(self._parts, begun)

    def check_corpus(self, corpus: CorpusConfig) -> None:
        require_form(self.name, corpus, RATE_HZ)

    def found_spec(self, context: StageContext) -> TokenSpec:
        return self.tokenizer(context).spec

    def planned_spec(self, run: RunConfig) -> TokenSpec:
        return style_spec(self._classifier(planned_config(self._parts[0], run)), self._clusters)

    def tokenizer(self, context: StageContext) -> StyleTokenizer:
        folder = context.run.stage(self.name)
        config = self._classifier(recorded_configs(folder)[PART])
        params = load_frozen(context.run, self.name)["frozen"]["classifier"]
        if self.kmeans is None:
            return StyleTokenizer(config, params)
        with np.load(io.BytesIO((folder.path / CENTROIDS).read_bytes())) as stored:
            return StyleTokenizer(config, params, stored["centroids"])

    def run(self, folder: StageFolder, context: StageContext) -> Sequence[str]:
        open_parts(self._parts, folder)
        if self.kmeans is not None:
            plain = self.replace(kmeans=None).tokenizer(context)
            means = self._means(plain, context) if is_first_host() else None
            on_first_host(lambda: self._fit(folder, means))
        tokenizer = self.tokenizer(context)
        for split in SPLITS:
            source = context.source(split)
            made = spread(tokenizer.encode, source, context, f"{self.name} {split}", ("id",), **this_host())
            write_shared(self.records(folder, split), style_rows(made), len(source))
        written = [UNITS, RECORD, on_first_host(lambda: write_spec(folder, tokenizer.spec))]
        return written if self.kmeans is None else [*written, CENTROIDS]

    def _means(self, tokenizer: StyleTokenizer, context: StageContext) -> Float[np.ndarray, "T P"]:
        """Means of all windows of the training speech."""
        found = []
        made = spread(tokenizer.encode, context.source("train"), context, self.name, ("id",))
        for rows, (_, pooled, mask) in one_behind(made):
            real = np.asarray(mask) & rows["valid"][:, None]
            found.append(np.asarray(pooled, np.float32)[real])
        return np.concatenate(found)

    def _fit(self, folder: StageFolder, means: Float[np.ndarray, "T P"] | None) -> None:
        assert self.kmeans is not None and means is not None  # for the type checker
        arrays = io.BytesIO()
        np.savez(arrays, centroids=np.asarray(fit_kmeans(self.kmeans, means).centroids))
        (folder.path / CENTROIDS).write_bytes(arrays.getvalue())

    @property
    def _clusters(self) -> int | None:
        return None if self.kmeans is None else self.kmeans.clusters

    @property
    def _parts(self) -> tuple[PartSource, ...]:
        return (PartSource(path=PART, source=self.source),)

    def _classifier(self, config: Any) -> SSLClassifierConfig:
        rule = "it holds no classifier of speech"
        require(isinstance(config, SSLClassifierConfig), f"source of stage {self.name!r}", self.source, rule)
        return config if self.window is None else config.replace(window=self.window)


def style_rows(batches: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the table with their places, in the order in which they come."""
    for rows, (ids, _, mask) in one_behind(batches):
        found, counts = np.asarray(ids), np.asarray(mask).sum(1)
        for i in np.flatnonzero(rows["valid"]):
            yield int(rows["index"][i]), {"id": rows["id"][i], "style": found[i, : counts[i]]}
