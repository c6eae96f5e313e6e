"""Speech units against true phones: purities and PNMI (HuBERT, Hsu et al. 2021, V-C), and how many bits they take."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from slm_jax.core.errors import require

UNLABELLED = -1
"""Label of frames that no phone covers; such frames are left out of every count."""

Pair = tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]
"""Units and phone labels of one sequence, T each (sequences differ in T)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitScores:
    """How well units match phones, each figure in 0..1, and on how many frames it stands.

    `phone_purity`: frames that get their phone right when each unit is read as its most frequent phone.
    `cluster_purity`: the same with each phone read as its most frequent unit. `pnmi`: I(phone; unit) / H(phone), the
    share of uncertainty about the phone that knowing the unit removes. `units_used`: units that occur at all.
    """

    phone_purity: float
    cluster_purity: float
    pnmi: float
    frames: int
    units_used: int

    def to_json(self) -> dict[str, float | int]:
        """Plain numbers by name."""
        return dataclasses.asdict(self)


def frame_labels(
    start_s: Float[np.ndarray, "P"],
    end_s: Float[np.ndarray, "P"],
    labels: Int[np.ndarray, "P"],
    frames: int,
    *,
    rate_hz: float | int = 50.0,
    centre_s: float | int = 0.0125,
    offset_s: float | int = 0.0,
) -> Int[np.ndarray, "T"]:
    """The label at the middle of each frame, from time-ordered spans [start, end) in seconds; `UNLABELLED` in gaps.

    `centre_s`: middle of frame 0 (12.5 ms for 25 ms windows). `offset_s` is added to the time at which labels are
    read: for annotations that lag behind the audio.
    """
    start_s, end_s, labels = np.asarray(start_s), np.asarray(end_s), np.asarray(labels)
    require(len(start_s) == len(end_s) == len(labels), "spans", (len(start_s), len(end_s), len(labels)), "equal counts")
    require(bool(np.all(np.diff(start_s) >= 0)), "span starts", "unordered", "must not go back in time")
    if not len(labels):
        return np.full(frames, UNLABELLED, np.int32)
    times = centre_s + np.arange(frames) / rate_hz + offset_s
    span = np.searchsorted(start_s, times, side="right") - 1
    inside = (span >= 0) & (times < end_s[np.maximum(span, 0)])
    return np.where(inside, labels[np.maximum(span, 0)], UNLABELLED).astype(np.int32)


def count_pairs(pairs: Sequence[Pair], units: int, phones: int) -> Int[np.ndarray, "K P"]:
    """How often each unit meets each phone over (units, labels) sequences of the same frames.

    A pair may differ by a frame or two in length (rounding at the end): the common part counts. Frames with a
    negative label or unit are left out. Raises `UserError` for ids out of range or lengths that differ by more.
    """
    table = np.zeros(units * phones, np.int64)
    for unit_ids, labels in pairs:
        apart, size = abs(len(unit_ids) - len(labels)), min(len(unit_ids), len(labels))
        require(apart <= 2, "lengths of units and labels", (len(unit_ids), len(labels)), "frames of the same signal")
        unit_ids, labels = np.asarray(unit_ids)[:size], np.asarray(labels)[:size]
        kept = (labels >= 0) & (unit_ids >= 0)
        if kept.any():
            highest = int(unit_ids[kept].max()), int(labels[kept].max())
            require(highest[0] < units and highest[1] < phones, "highest ids", highest, f"under {units} and {phones}")
        table += np.bincount(unit_ids[kept].astype(np.int64) * phones + labels[kept], minlength=units * phones)
    return table.reshape(units, phones)


def score_units(counts: Int[np.ndarray, "K P"]) -> UnitScores:
    """Purities and PNMI of a table of counts; raises `UserError` when it is empty."""
    total = int(counts.sum())
    require(total > 0, "labelled frames", total, "at least one is needed")
    joint = counts / total
    unit, phone = joint.sum(axis=1), joint.sum(axis=0)
    together = joint[joint > 0]
    apart = np.outer(unit, phone)[joint > 0]
    uncertainty = -np.sum(phone[phone > 0] * np.log(phone[phone > 0]))
    shared = np.sum(together * np.log(together / apart))
    return UnitScores(
        phone_purity=float(joint.max(axis=1).sum()),
        cluster_purity=float(joint.max(axis=0).sum()),
        pnmi=float(shared / uncertainty) if uncertainty > 0 else 0.0,
        frames=total,
        units_used=int((unit > 0).sum()),
    )


def bitrate(sequences: Sequence[Int[np.ndarray, "_"]], seconds: float | int) -> float:
    """Bits per second of units: entropy of a unit times units per second (ZeroSpeech 2019, Dunbar et al.).

    `seconds`: of all sequences together. The entropy is that of single units in what is there, so that few sequences
    give too little, and order is not counted: a model of the units needs fewer bits.
    """
    require(seconds > 0, "seconds", seconds, "must be positive")
    units = np.concatenate([np.asarray(one) for one in sequences]) if len(sequences) else np.zeros(0, int)
    _, counts = np.unique(units, return_counts=True)
    return float(-(counts * np.log2(counts / max(len(units), 1))).sum() / seconds)


def score_at_equal_frames(
    sets: Mapping[str, Sequence[Pair]], units: int, phones: int, *, seed: int = 0, frames: int | None = None
) -> dict[str, UnitScores]:
    """Scores of several unit sets on the same number of frames, drawn without replacement.

    PNMI grows as samples shrink, so figures from unequal counts do not compare. `frames`: how many, by default all of
    the smallest set.
    """
    flat = {name: _flattened(pairs) for name, pairs in sets.items()}
    smallest = min(len(labels) for _, labels in flat.values())
    count = smallest if frames is None else frames
    require(0 < count <= smallest, "frames", count, f"1 to {smallest}, the labelled frames of the smallest set")
    scores = {}
    for name, (unit_ids, labels) in flat.items():
        chosen = np.random.default_rng(seed).choice(len(labels), count, replace=False)
        scores[name] = score_units(count_pairs([(unit_ids[chosen], labels[chosen])], units, phones))
    return scores


def _flattened(pairs: Sequence[Pair]) -> Pair:
    """All labelled frames of all sequences, one after the other."""
    cut = [(np.asarray(u)[: len(p)], np.asarray(p)[: len(u)]) for u, p in pairs]
    unit_ids, labels = (np.concatenate(parts) for parts in zip(*cut, strict=True))
    kept = (labels >= 0) & (unit_ids >= 0)
    return unit_ids[kept], labels[kept]
