"""Held-out texts: how likely the system finds them, and how it goes on with their openings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_jax.core.contracts import Scores
from slm_jax.core.messages import written
from slm_jax.evaluation.answers import token_f1
from slm_jax.evaluation.intervals import bootstrap_interval
from slm_jax.evaluation.section import JudgeConfig, JudgeSettings, Lacking, Section, Table
from slm_jax.evaluation.transcription import normaliser
from slm_jax.judges.asking import items_of, replies_to, require_kinds_of_parts, text_of, turned
from slm_jax.training.stages import StageContext

SHOWN = 6
"""Openings that are shown."""
WORDS = (
    "Openings are the first halves of held-out texts. First word: that of the reply is the real next one. F1: words of "
    "the reply, cut to as many as really follow, against those. Other texts: the same replies against other rests."
)
SCORED = (
    "Nats are means over tokens, which differ between tokenizers; nats per word do not. Shuffled: the same words in "
    "random order."
)


class TextContinuationJudge(JudgeConfig):
    """Does the system, which reads and writes text, know how texts go on?

    The texts are those of held-out items of `kinds` (None: those that the corpus gives unasked) of two words or more.
    """

    name: str = "text_continuation"
    kinds: tuple[str, ...] | None = None
    language: str = "en"

    def judge(self, system: Any, context: StageContext, settings: JudgeSettings) -> Section:
        require_kinds_of_parts(system, reads=("text",), writes=("text",))
        items = items_of(context, self.kinds, settings.utterances, lambda item: len(item["text"].split()) > 1)
        if not items:
            raise Lacking("no held-out utterance has a text of two words or more")
        texts = [item["text"] for item in items]
        openings, rests = zip(*map(halves, texts), strict=True)
        replies = [text_of(reply) for reply in replies_to(system, [written(opening) for opening in openings])]
        figures: dict[str, Any] = continuation_figures(rests, replies, self.language)
        tables = [
            Table(
                ["texts", "first word", "first word, other texts", "F1", "F1, other texts", "empty"], [_cells(figures)]
            ),
            Table(["opening", "real rest", "reply"], [*zip(openings, rests, replies, strict=True)][:SHOWN], "Openings"),
        ]
        if not isinstance(system, Scores):
            words = f"{WORDS} Left out: log-probabilities, which this system does not give."
            return Section("Text", words, {self.name: figures}, tables)
        scored = likelihood(system, texts)
        tables.insert(0, Table([name.replace("_", " ") for name in scored], [list(scored.values())]))
        return Section("Text", f"{SCORED} {WORDS}", {self.name: figures | scored}, tables)


def halves(text: str) -> tuple[str, str]:
    """The first half of the words, the smaller one, and the rest."""
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def continuation_figures(rests: Sequence[str], replies: Sequence[str], language: str = "en") -> dict[str, Any]:
    """How replies agree with real rests, and with those of the next text (None for a single one)."""
    plain = normaliser(language)
    true, said = ([plain(text).split() for text in texts] for texts in (rests, replies))
    first, f1 = agreement(true, said)
    other = agreement(turned(true), said) if len(true) > 1 else ([], [])
    return {
        "texts": len(true),
        "empty": sum(not words for words in said),
        "first_word": _mean(first),
        "first_word_interval": bootstrap_interval(first),
        "first_word_other_texts": _mean(other[0]),
        "f1": _mean(f1),
        "f1_interval": bootstrap_interval(f1),
        "f1_other_texts": _mean(other[1]),
    }


def agreement(true: Sequence[list[str]], said: Sequence[list[str]]) -> tuple[list[float], list[float]]:
    """For each text: is the first word the same, and token F1 of as many words as are real."""
    pairs = list(zip(true, said, strict=True))
    first = [float(real[:1] == words[:1]) for real, words in pairs]
    return first, [token_f1(real, words[: len(real)]) for real, words in pairs]


def likelihood(system: Any, texts: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Nats per token, perplexity and nats per word of texts, and nats per token of their words in random order."""
    rng = np.random.default_rng(seed)
    mixed = [" ".join(rng.permutation(text.split()).tolist()) for text in texts]
    scores, control = (
        np.concatenate([np.asarray(row, np.float64) for row in system.log_prob([written(text) for text in some])])
        for some in (texts, mixed)
    )
    nats = float(-scores.mean())
    return {
        "nats_per_token": nats,
        "perplexity": float(np.exp(nats)),
        "nats_per_word": float(-scores.sum()) / sum(len(text.split()) for text in texts),
        "tokens": len(scores),
        "nats_per_token_shuffled": float(-control.mean()),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _cells(figures: dict[str, Any]) -> list[Any]:
    names = ("texts", "first_word", "first_word_other_texts", "f1", "f1_other_texts", "empty")
    return [figures[name] for name in names]
