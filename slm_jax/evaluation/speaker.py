"""Whose voice speaks? Vectors of clips against those of speakers: cosines, and how often the right one is nearest.

    names, voices = speaker_vectors(enrolled, speakers)
    identify(similarities(heard, voices), [names.index(one) for one in spoken_by]).accuracy

Vectors come from a speaker encoder (`encoders.speaker`) or any other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require
from slm_jax.evaluation.intervals import Interval, bootstrap_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identification:
    """How often the right one of K candidate speakers is the nearest.

    `accuracy`: over clips, a tie counting as one over the speakers that share it; chance is 1 / `candidates`.
    `interval`: 95 % of it by the bootstrap over clips, None for fewer than two. `own` and `best_other`: mean cosine to
    the right speaker and to the nearest wrong one.
    """

    accuracy: float
    interval: Interval | None
    clips: int
    candidates: int
    own: float
    best_other: float

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def similarities(first: Float[np.ndarray, "N D"], second: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "N K"]:
    """The cosine of each of the first with each of the second; 0 where a vector is zero."""
    return _unit(first) @ _unit(second).T


def speaker_vectors(
    vectors: Float[np.ndarray, "N D"], speakers: Sequence[str]
) -> tuple[list[str], Float[np.ndarray, "K D"]]:
    """The speakers in order of name, and the mean direction of each one's clips."""
    require(len(vectors) == len(speakers), "vectors, speakers", (len(vectors), len(speakers)), "as many of both")
    names, unit = sorted(set(speakers)), _unit(vectors)
    rows = [unit[np.array([speaker == name for speaker in speakers])].mean(0) for name in names]
    return names, _unit(np.stack(rows)) if rows else unit


def identify(
    cosines: Float[np.ndarray, "N K"], right: Sequence[int] | Int[np.ndarray, "N"], seed: int = 0
) -> Identification:
    """Score clips against candidates: `right` is the column of each clip's own speaker.

    Raises `UserError` for no clip, for fewer than two candidates, or a column that is none.
    """
    (clips, candidates), columns = cosines.shape, np.asarray(right, np.int64)
    require(clips == len(columns) and clips > 0, "clips, right", (clips, len(columns)), "as many of both, and some")
    require(candidates >= 2, "candidates", candidates, "at least two: one is always the nearest")
    inside = bool(((columns >= 0) & (columns < candidates)).all())
    require(inside, "right", columns.tolist(), f"columns of {candidates} candidates")
    own = cosines[np.arange(clips), columns]
    others = np.where(np.arange(candidates) == columns[:, None], -np.inf, cosines)
    sharing = 1 + (others == own[:, None]).sum(1)
    points = np.where(others.max(1) > own, 0.0, 1 / sharing)
    return Identification(
        accuracy=float(points.mean()),
        interval=bootstrap_interval(points.tolist(), seed),
        clips=clips,
        candidates=candidates,
        own=float(own.mean()),
        best_other=float(others.max(1).mean()),
    )


def pair_similarities(
    vectors: Float[np.ndarray, "N D"], speakers: Sequence[str]
) -> tuple[Float[np.ndarray, "P"], Float[np.ndarray, "Q"]]:
    """Cosines of all pairs of clips: those of one speaker, and those of two."""
    require(len(vectors) == len(speakers), "vectors, speakers", (len(vectors), len(speakers)), "as many of both")
    one, other = np.triu_indices(len(vectors), k=1)
    cosines, names = similarities(vectors, vectors)[one, other], np.asarray(speakers)
    same = names[one] == names[other]
    return cosines[same], cosines[~same]


def _unit(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    wide = np.asarray(vectors, np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
