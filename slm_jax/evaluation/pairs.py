"""Pairs of clips, one right and one wrong: how often a speech language model finds the right one likelier.

    figures = pair_figures(scored, "mean")
    write_scores("swuggy.jsonl", scored, {"archive": "sLM21"})
    assert rescored("swuggy.jsonl") == figures                     # without the model

This is how sWUGGY, sBLIMP (Nguyen et al. 2020), the spoken StoryClozes (Hassid et al. 2023) and SALMon (Maimon et al.
2024) are scored: the positive above the negative is a point, a tie half a point. Whether ln p is summed or averaged
over tokens is not settled in the field and moves the figures, so all figures say which it is.
"""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.errors import UserError, require
from slm_jax.core.paths import write_whole
from slm_jax.evaluation.intervals import bootstrap_interval

SCORES = ("mean", "sum")
"""ln p of a clip averaged over its tokens, or summed."""
KEPT_AS = "pairs 1"
"""The form of a file of kept scores, in its first line."""


class ClipScore(NamedTuple):
    """ln p of all tokens of a clip, summed, and how many there are."""

    log_prob: float
    tokens: int

    @classmethod
    def of(cls, log_probs: Any, name: str) -> "ClipScore":
        """From ln p of every token; raises `UserError` where there is none or the sum is not finite."""
        values = np.asarray(log_probs, np.float64)
        require(values.size > 0, f"log-probabilities of {name}", "none", "a clip has a token at least")
        total = float(values.sum())
        require(math.isfinite(total), f"log-probability of {name}", total, "must be finite")
        return cls(total, int(values.size))

    def value(self, score: str) -> float:
        """What is compared: one of `SCORES`."""
        return self.log_prob / self.tokens if score == "mean" else self.log_prob


@dataclasses.dataclass(frozen=True)
class ScoredPair:
    """One pair, scored.

    `id` is its own within `test`. Pairs of one `item`, such as a word in several voices, count once, by their mean:
    they are not independent of each other. `group`: the part of the test that it belongs to, empty where there is one.
    """

    test: str
    id: str
    item: str
    group: str
    positive: ClipScore
    negative: ClipScore

    def points(self, score: str) -> float:
        """1 where the positive is likelier, 0 where the negative is, a half for a tie."""
        return _points(self.positive.value(score), self.negative.value(score))

    @property
    def points_of_shorter(self) -> float:
        """The same for one who prefers what has fewer tokens and hears nothing."""
        return _points(float(self.negative.tokens), float(self.positive.tokens))


def pair_figures(pairs: Sequence[ScoredPair], score: str = "mean") -> dict[str, Any]:
    """Accuracy of each test, and of its groups: `{"score": ..., "tests": {name: {..., "groups": {name: ...}}}}`.

    `accuracy`: points per item, with the bounds within which 95 % of it lie when as many items are drawn anew
    (bootstrap); `macro_accuracy`: the mean over groups, where there are several; `shorter`: the accuracy of preferring
    fewer tokens, which the sum of ln p leans towards. Raises `UserError` for a `score` that is none of `SCORES`.
    """
    require(score in SCORES, "score", score, f"one of {', '.join(SCORES)}")
    return {"score": score, "tests": {name: _test(some, score) for name, some in _by(pairs, "test").items()}}


def write_scores(path: str | Path, pairs: Iterable[ScoredPair], settings: Mapping[str, Any]) -> Path:
    """Keep the scores as JSON lines: `settings` (plain JSON) in the first, then a pair in each.

    `settings["score"]` is what `rescored` uses unless told otherwise.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"kept_as": KEPT_AS, **settings}, *map(_row, pairs)]
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read_scores(path: str | Path) -> tuple[dict[str, Any], list[ScoredPair]]:
    """The settings and the pairs of a file of `write_scores`; raises `UserError` that names the file and the line."""
    path = Path(path)
    require(path.is_file(), "file of scores", str(path), "does not exist")
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = _parsed(lines[0] if lines else "", path, 1)
    require(settings.pop("kept_as", None) == KEPT_AS, "file of scores", str(path), f"its first line says {KEPT_AS!r}")
    return settings, [_pair(_parsed(line, path, place), path, place) for place, line in enumerate(lines[1:], start=2)]


def rescored(path: str | Path, score: str | None = None) -> dict[str, Any]:
    """`pair_figures` of kept scores; `score` None: as the file's settings say."""
    settings, pairs = read_scores(path)
    return pair_figures(pairs, settings.get("score", "mean") if score is None else score)


def _test(pairs: Sequence[ScoredPair], score: str) -> dict[str, Any]:
    groups = {name: _part(some, score) for name, some in _by(pairs, "group").items()}
    found = _part(pairs, score)
    if len(groups) > 1:
        found["macro_accuracy"] = sum(part["accuracy"] for part in groups.values()) / len(groups)
    return found | ({"groups": groups} if any(groups) else {})


def _part(pairs: Sequence[ScoredPair], score: str) -> dict[str, Any]:
    points = _per_item(pairs, lambda pair: pair.points(score))
    shorter = _per_item(pairs, lambda pair: pair.points_of_shorter)
    interval = bootstrap_interval(points)
    return {
        "accuracy": sum(points) / len(points),
        "interval": None if interval is None else list(interval),
        "shorter": sum(shorter) / len(shorter),
        "pairs": len(pairs),
        "items": len(points),
    }


def _per_item(pairs: Sequence[ScoredPair], points: Callable[[ScoredPair], float]) -> list[float]:
    """Mean points of each item."""
    return [sum(map(points, some)) / len(some) for some in _by(pairs, "item").values()]


def _by(pairs: Iterable[ScoredPair], field: str) -> dict[str, list[ScoredPair]]:
    """Pairs by the value of a field, in the order in which values come."""
    found: dict[str, list[ScoredPair]] = defaultdict(list)
    for pair in pairs:
        found[getattr(pair, field)].append(pair)
    return dict(found)


def _points(mine: float, other: float) -> float:
    return 0.5 if mine == other else float(mine > other)


def _row(pair: ScoredPair) -> dict[str, Any]:
    sides = {name: getattr(pair, name)._asdict() for name in ("positive", "negative")}
    return {"test": pair.test, "id": pair.id, "item": pair.item, "group": pair.group, **sides}


def _parsed(line: str, path: Path, place: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    require(isinstance(found, dict), f"line {place} of {str(path)!r}", line[:80], "must be a JSON object")
    return found


def _pair(row: dict[str, Any], path: Path, place: int) -> ScoredPair:
    try:
        right, wrong = (
            ClipScore(float(one["log_prob"]), int(one["tokens"])) for one in (row["positive"], row["negative"])
        )
        test, id, item, group = (str(row[name]) for name in ("test", "id", "item", "group"))
        return ScoredPair(test, id, item, group, right, wrong)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"line {place} of {str(path)!r} is {str(row)[:80]}: no scored pair ({error!r})") from error
