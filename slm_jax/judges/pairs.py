"""Which of two clips does a system find likelier? sWUGGY, sBLIMP, StoryCloze, SALMon, and the world's own.

    python -m slm_jax evaluate RUN --judges pairs                        # what the world can ask
    python -m slm_jax evaluate RUN --judges pairs --pairs tSC sLM21      # archives as downloaded

The scores of all clips stay in the run folder, `pairs/<test>.jsonl`: `evaluation.pairs.rescored` makes the figures of
them again, by the mean or by the sum, without the model.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slm_jax.core.contracts import Scores
from slm_jax.core.errors import require
from slm_jax.core.messages import spoken
from slm_jax.data.corpus import SeveralCorporaConfig, WorldConfig
from slm_jax.data.pairs.archives import read_pairs
from slm_jax.data.pairs.pair import SpeechPair
from slm_jax.data.pairs.world import WorldPairs
from slm_jax.evaluation.pairs import SCORES, ClipScore, ScoredPair, pair_figures, write_scores
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.judges.asking import require_kinds_of_parts
from slm_jax.training.stages import StageContext

KEPT = "pairs"
"""The folder of the run that holds the scores of all clips."""
TOGETHER = 32
"""Pairs that are read and scored together; a system sorts them into batches by length."""
WORDS = (
    "How often ln p of the right clip lies above that of the wrong one; a tie is one half, chance is 0.5. {how} With "
    "95 % intervals (bootstrap over items). Fewer tokens: the accuracy of preferring the clip with fewer tokens, by "
    "which a sum can win without having understood."
)
HOW = {
    "mean": "ln p is averaged over the tokens of a clip, its end among them.",
    "sum": "ln p is summed over the tokens of a clip, its end among them.",
}
Tests = dict[str, list[SpeechPair]]


class PairsJudge(JudgeConfig):
    """Compares ln p of the two clips of every pair.

    `folders`: archives as downloaded (`data.pairs.archives`); those that `JudgeSettings.pairs` names take their place.
    Without any the tests are those that `world` makes in the world of the corpus, None for the usual ones. `score`: ln
    p of a clip is the "mean" over its tokens or the "sum". `most`: pairs that are looked at in each group of an
    archive, spread evenly over it, None for all; of the world's there are as many of each kind as
    `JudgeSettings.utterances` says.
    """

    name: str = "pairs"
    folders: tuple[str, ...] = ()
    score: str = "mean"
    most: int | None = None
    world: WorldPairs | None = None

    def __post_init__(self) -> None:
        require(self.score in SCORES, "score", self.score, f"one of {', '.join(SCORES)}")
        require(self.most is None or self.most >= 1, "most", self.most, "at least 1, or None")

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("speech",))
        rate_hz = system.rate_hz
        if not isinstance(system, Scores):
            raise Lacking("the system gives no log-probabilities")
        scored: list[ScoredPair] = []
        for test, (pairs, source) in self.tests(context, settings).items():
            context.say(f"scoring {len(pairs)} pairs of {test}")
            rows = list(scored_pairs(system, pairs))
            kept = {"score": self.score, "test": test, **source, "rate_hz": rate_hz}
            write_scores(Path(context.run.path) / KEPT / f"{file_name(test)}.jsonl", rows, kept)
            scored += rows
        figures = pair_figures(scored, self.score)
        return Section("Pairs", WORDS.format(how=HOW[self.score]), {self.name: figures}, (_table(figures),))

    def tests(
        self, context: StageContext, settings: JudgeSettings
    ) -> dict[str, tuple[list[SpeechPair], dict[str, Any]]]:
        """The pairs of every test with what they were made of; raises `Lacking` where there is nothing to ask."""
        found: dict[str, tuple[list[SpeechPair], dict[str, Any]]] = {}
        folders = settings.pairs or self.folders
        for folder in folders:
            for test, pairs in _by_test(thinned(read_pairs(folder), self.most)).items():
                require(test not in found, "folders", folder, f"two of them hold a test called {test!r}: rename one")
                found[test] = pairs, {"folder": str(folder)}
        if folders:
            return found
        world = world_of(context)
        if world is None:
            raise Lacking("no archive of pairs was named, and the corpus is not the world, which makes its own")
        maker = self.world or WorldPairs()
        pairs = maker.pairs(world, settings.utterances)
        return {test: (some, {"world": maker.to_json()}) for test, some in _by_test(pairs).items()}


def scored_pairs(system: Any, pairs: Sequence[SpeechPair]) -> Iterator[ScoredPair]:
    """ln p of both clips of every pair, in their order; `system` is one of `Scores`. Clips are read in turn."""
    for start in range(0, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        clips = [clip for pair in some for clip in (pair.positive, pair.negative)]
        found = system.log_prob([spoken(clip.samples(system.rate_hz), system.rate_hz) for clip in clips])
        for place, pair in enumerate(some):
            name = f"{pair.test} {pair.id}"
            sides = (ClipScore.of(row, name) for row in found[2 * place : 2 * place + 2])
            yield ScoredPair(pair.test, pair.id, pair.item, pair.group, *sides)


def thinned(pairs: Sequence[SpeechPair], most: int | None) -> list[SpeechPair]:
    """At most so many pairs of each group of each test, spread evenly over it; all where `most` is None."""
    groups: dict[tuple[str, str], list[SpeechPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.test, pair.group), []).append(pair)
    return [pair for some in groups.values() for pair in _spread(some, most)]


def world_of(context: StageContext) -> WorldConfig | None:
    """The world that a run's corpus is, or the first one among several corpora; None without."""
    corpus = context.corpus
    several = [part.corpus for part in corpus.corpora] if isinstance(corpus, SeveralCorporaConfig) else [corpus]
    return next((one for one in several if isinstance(one, WorldConfig)), None)


def file_name(test: str) -> str:
    """A test's name as that of a file."""
    return re.sub(r"[^\w.-]+", "_", test)


def _spread(pairs: Sequence[SpeechPair], most: int | None) -> list[SpeechPair]:
    if most is None or len(pairs) <= most:
        return list(pairs)
    return [pairs[place * len(pairs) // most] for place in range(most)]


def _by_test(pairs: Sequence[SpeechPair]) -> Tests:
    found: Tests = {}
    for pair in pairs:
        found.setdefault(pair.test, []).append(pair)
    return found


def _table(figures: dict[str, Any]) -> Table:
    rows = []
    for test, found in figures["tests"].items():
        rows.append([test, *_cells(found)])
        rows += [[f"{test}: {group}", *_cells(part)] for group, part in found.get("groups", {}).items() if group]
    return Table(("", f"accuracy ({figures['score']} ln p)", "fewer tokens", "pairs", "items"), rows)


def _cells(part: dict[str, Any]) -> list[Any]:
    value, interval = part["accuracy"], part["interval"]
    shown = value if interval is None else f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    return [shown, part["shorter"], part["pairs"], part["items"]]
