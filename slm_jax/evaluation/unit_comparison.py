"""Several features, each clustered after several equal treatments, scored against true phones."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from slm_jax.core.types import Frames
from slm_jax.evaluation.units import UnitScores, bitrate, score_at_equal_frames
from slm_jax.quantizers.kmeans import KMeansConfig, fit_kmeans
from slm_jax.quantizers.nearest import assign
from slm_jax.quantizers.postprocess import PostprocessConfig, real_frames, treated
from slm_jax.token_compression.dedup import dedup_row

TREATMENTS = tuple(
    PostprocessConfig(normalise=normalise, smooth=smooth)
    for normalise in ("none", "standardise", "whiten", "layer_norm")
    for smooth in (1, 3)
)


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Batches of features: of training speech to cluster, and of the utterances to score."""

    train: Sequence[Frames]
    test: Sequence[Frames]


@dataclasses.dataclass(frozen=True)
class Compared:
    """Scores of one feature under one treatment: one entry per seed of k-means.

    `bits`: bits per second of the units of all scored utterances, and of the same without repetitions.
    """

    feature: str
    treatment: PostprocessConfig
    clusters: int
    scores: tuple[UnitScores, ...]
    bits: tuple[tuple[float, float], ...]

    def mean(self, figure: str) -> float:
        """Mean of a figure of `UnitScores` over the seeds."""
        return float(np.mean([getattr(score, figure) for score in self.scores]))

    def to_json(self) -> dict:
        """Plain numbers: means over the seeds, and every seed."""
        figures = ("phone_purity", "cluster_purity", "pnmi")
        return {
            "feature": self.feature,
            "normalise": self.treatment.normalise,
            "smooth": self.treatment.smooth,
            "clusters": self.clusters,
            "frames": self.scores[0].frames,
            **{figure: self.mean(figure) for figure in figures},
            "bitrate": float(np.mean([bits for bits, _ in self.bits])),
            "run_bitrate": float(np.mean([bits for _, bits in self.bits])),
            "seeds": [{figure: getattr(score, figure) for figure in figures} for score in self.scores],
        }


def compare_features(
    features: Mapping[str, FeatureSet],
    labels: Sequence[Int[np.ndarray, "_"]],
    phones: int,
    kmeans: KMeansConfig,
    *,
    seeds: int = 1,
    treatments: Sequence[PostprocessConfig] = TREATMENTS,
    rate_hz: float | int = 50.0,
    progress: Callable[[str], None] | None = None,
) -> list[Compared]:
    """Every feature under every treatment, all on the same number of frames of the same utterances.

    `labels`: the phone of every frame of each scored utterance (the rows of `test` that are not empty, in their order),
    negative where there is none. `rate_hz`: frames per second.
    """
    results = []
    for treatment in treatments:
        per_seed: dict[str, list[UnitScores]] = {name: [] for name in features}
        bits: dict[str, list[tuple[float, float]]] = {name: [] for name in features}
        for seed in range(seeds):
            units = {name: clustered(one, treatment, kmeans, seed) for name, one in features.items()}
            pairs = {name: list(zip(rows, labels, strict=True)) for name, rows in units.items()}
            for name, score in score_at_equal_frames(pairs, kmeans.clusters, phones, seed=seed).items():
                per_seed[name].append(score)
                bits[name].append(bits_per_second(units[name], rate_hz))
        for name, scores in per_seed.items():
            results.append(Compared(name, treatment, kmeans.clusters, tuple(scores), tuple(bits[name])))
            if progress is not None:
                progress(
                    f"{name}, {treatment.normalise}, window {treatment.smooth}: PNMI {results[-1].mean('pnmi'):.3f}"
                )
    return results


def bits_per_second(units: Sequence[Int[np.ndarray, "_"]], rate_hz: float | int) -> tuple[float, float]:
    """Of units of frames, and of the same without repetitions."""
    seconds = sum(map(len, units)) / rate_hz
    return bitrate(units, seconds), bitrate([dedup_row(row)[0] for row in units], seconds)


def clustered(
    features: FeatureSet, treatment: PostprocessConfig, kmeans: KMeansConfig, seed: int
) -> list[Int[np.ndarray, "_"]]:
    """Units of the scored utterances, row by row, after k-means on the treated training frames."""
    post = treatment.fit(real_frames(features.train))
    fit = fit_kmeans(kmeans.replace(seed=seed), real_frames(treated(post, one) for one in features.train))
    units = np.asarray(assign(real_frames(treated(post, one) for one in features.test), fit.centroids))
    lengths = np.concatenate([np.asarray(batch.mask).sum(1) for batch in features.test])
    return np.split(units, np.cumsum(lengths[lengths > 0])[:-1])
