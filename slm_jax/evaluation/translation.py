"""How good translations are: corpus BLEU (Papineni et al. 2002) and chrF (Popović 2015), as sacrebleu computes them.

A figure comes with sacrebleu's signature, which says how it was computed: two that differ in it cannot be compared.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from slm_jax.core.errors import require
from slm_jax.evaluation.intervals import Interval

DRAWS = 1000
TOKENIZERS = {"zh": "zh", "ja": "char"}
"""By target language; the others are cut into words as WMT does it (13a)."""


class TranslationScore(NamedTuple):
    """`value` from 0 to 100, None without any text; `interval`: of 95 %, by the bootstrap over texts, None for one."""

    value: float | None
    interval: Interval | None
    signature: str


def bleu(references: Sequence[str], said: Sequence[str], language: str = "en") -> TranslationScore:
    """BLEU of `said` against one reference each; raises `UserError` when there are not as many."""
    from sacrebleu.metrics import BLEU

    return _scored(BLEU, references, said, {"tokenize": TOKENIZERS.get(language, "13a")})


def chrf(references: Sequence[str], said: Sequence[str]) -> TranslationScore:
    """chrF2, characters in six orders and no words."""
    from sacrebleu.metrics import CHRF

    return _scored(CHRF, references, said, {})


def _scored(metric: Any, references: Sequence[str], said: Sequence[str], settings: dict[str, Any]) -> TranslationScore:
    require(len(references) == len(said), "translations", len(said), f"one for each of {len(references)} references")
    if not said:
        return TranslationScore(None, None, "")
    own = metric(**settings)
    statistics = np.array(own._extract_corpus_statistics(list(said), [list(references)]))
    value = own._compute_score_from_stats(statistics.sum(0).tolist()).score
    return TranslationScore(value, _interval(own, statistics), str(own.get_signature()))


def _interval(metric: Any, statistics: np.ndarray) -> Interval | None:
    """Quantiles of the score of as many texts drawn anew; sacrebleu's own is symmetric about their mean."""
    if len(statistics) < 2:
        return None
    chosen = np.random.default_rng(0).integers(len(statistics), size=(DRAWS, len(statistics)))
    scores = [metric._compute_score_from_stats(sums).score for sums in statistics[chosen].sum(1).tolist()]
    low, high = np.quantile(scores, (0.025, 0.975))
    return float(low), float(high)
