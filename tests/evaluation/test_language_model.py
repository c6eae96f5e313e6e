"""n-gram baselines and statistics of unit sequences."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.language_model import (
    NGram,
    at_equal_length,
    fit_ngram,
    longest_repeat,
    sequence_statistics,
    share_seen,
    shuffled,
)


def markov(sequences, length, units=8, seed=0):
    """Sequences of a fixed random Markov chain, and the entropy rate of the chain in nats."""
    chain = np.random.default_rng(42).dirichlet(np.full(units, 0.3), units)
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(sequences):
        ids = [int(generator.integers(units))]
        while len(ids) < length:
            ids.append(int(generator.choice(units, p=chain[ids[-1]])))
        made.append(np.array(ids))
    stationary = np.linalg.matrix_power(chain, 200)[0]
    return made, float(-(stationary[:, None] * chain * np.log(np.maximum(chain, 1e-300))).sum())


def test_bigram_by_hand():
    model = fit_ngram([np.array([0, 1, 0, 1])], 2, 2, tune_on=[np.array([0, 1])])
    s1, s2 = model.strengths
    unigram = (2 + s1 / 2) / (4 + s1)
    after_start, after_zero = (1 + s2 * unigram) / (1 + s2), (2 + s2 * unigram) / (2 + s2)
    np.testing.assert_allclose(model.log_probabilities([np.array([0, 1])]), np.log([after_start, after_zero]))


@pytest.mark.parametrize("count_end", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one(order, count_end):
    train, _ = markov(5, 30)
    model = fit_ngram(train, 8, order, tune_on=train[:1], count_end=count_end)
    for context in ([], [3], [3, 5], [7, 7]):
        continuations = [np.array([*context, unit]) for unit in range(8)]
        last = -2 if count_end else -1
        total = sum(np.exp(model.log_probabilities([ids])[last]) for ids in continuations)
        if count_end:
            total += np.exp(model.log_probabilities([np.array(context, int)])[-1])
        assert total == pytest.approx(1.0)


def test_bigram_reaches_the_entropy_of_its_chain():
    train, entropy = markov(150, 100)
    tune, _ = markov(20, 100, seed=1)
    test, _ = markov(40, 100, seed=2)
    unigram, bigram, trigram = (fit_ngram(train, 8, n, tune_on=tune).nats_per_unit(test) for n in (1, 2, 3))
    assert bigram == pytest.approx(entropy, abs=0.03)
    assert unigram > bigram + 0.2
    assert trigram == pytest.approx(bigram, abs=0.02)  # nothing more to learn, and the tuned smoothing knows it


def test_tuning_beats_fixed_smoothing():
    train, _ = markov(3, 40)
    tune, _ = markov(20, 100, seed=1)
    tuned = fit_ngram(train, 8, 3, tune_on=tune)
    for strength in (0.1, 10.0, 1e4):
        fixed = NGram(8, False, (strength,) * 3, tuned.tables)
        assert tuned.nats_per_unit(tune) <= fixed.nats_per_unit(tune) + 1e-9


def test_statistics_by_hand():
    stats = sequence_statistics([np.array([1, 1, 1, 2]), np.array([2, 1])])
    assert stats.units == 6
    share = np.array([2, 1, 1]) / 4  # 11 11 12 21
    assert stats.bigram_entropy == pytest.approx(-(share * np.log(share)).sum())
    first = np.array([3, 1]) / 4
    assert stats.conditional_entropy == pytest.approx(stats.bigram_entropy + (first * np.log(first)).sum())
    assert stats.longest_run == 3
    assert stats.distinct_bigrams == pytest.approx(3 / 4)
    assert stats.distinct_trigrams == 1.0


@pytest.mark.parametrize(
    "ids, period, expected",
    [
        ([], 1, 0),
        ([4], 1, 1),
        ([4, 5, 6], 1, 1),
        ([4, 5, 5, 5, 6], 1, 3),
        ([1, 2, 1, 2, 1, 3], 2, 5),
        ([1, 2, 1, 3], 2, 0),
        ([7, 1, 2, 3, 1, 2, 3, 7], 3, 6),
    ],
)
def test_longest_repeat(ids, period, expected):
    assert longest_repeat(np.array(ids, int), period) == expected


def test_loop_of_a_pattern_is_seen_though_no_unit_repeats():
    stats = sequence_statistics([np.tile([3, 1, 4], 10)])
    assert (stats.longest_run, stats.longest_loop) == (1, 30)


def test_shuffling_keeps_units_and_loses_order():
    real, _ = markov(30, 100)
    mixed = shuffled(real)
    assert all(sorted(a) == sorted(b) for a, b in zip(real, mixed, strict=True))
    here, there = sequence_statistics(real), sequence_statistics(mixed)
    assert here.unigram_entropy == pytest.approx(there.unigram_entropy)
    assert there.bigram_entropy > here.bigram_entropy + 0.2


def test_equal_length():
    cut = at_equal_length([np.arange(5), np.arange(5)], [np.arange(7)])
    assert [[len(ids) for ids in group] for group in cut] == [[5, 2], [7]]


def test_share_seen():
    assert share_seen([np.array([1, 2, 3])], [np.array([0, 1, 2])], 2) == 0.5


def test_errors():
    with pytest.raises(UserError, match="0 to 7"):
        fit_ngram([np.array([8])], 8, 2, tune_on=[np.array([0])])
    with pytest.raises(UserError, match="tuning events"):
        fit_ngram([np.array([1])], 8, 2, tune_on=[])
