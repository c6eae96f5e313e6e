"""Purities and PNMI: by hand and against scikit-learn."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.units import (
    UNLABELLED,
    bitrate,
    count_pairs,
    frame_labels,
    score_at_equal_frames,
    score_units,
)


def test_scores_by_hand():
    counts = np.array([[6, 2], [1, 1], [0, 0]])
    scores = score_units(counts)
    assert scores.phone_purity == pytest.approx((6 + 1) / 10)
    assert scores.cluster_purity == pytest.approx((6 + 2) / 10)
    phone = np.array([0.7, 0.3])
    shared = sum(p * np.log(p / q) for p, q in [(0.6, 0.8 * 0.7), (0.2, 0.8 * 0.3), (0.1, 0.2 * 0.7), (0.1, 0.2 * 0.3)])
    assert scores.pnmi == pytest.approx(shared / -(phone * np.log(phone)).sum())
    assert (scores.frames, scores.units_used) == (10, 2)


def test_perfect_split_and_useless_units():
    finer = score_units(np.array([[5, 0], [5, 0], [0, 5]]))  # two units for one phone: phones still known
    assert (finer.phone_purity, finer.pnmi) == (1.0, pytest.approx(1.0))
    assert finer.cluster_purity == pytest.approx(10 / 15)
    useless = score_units(np.array([[6, 3], [2, 1]]))
    assert useless.pnmi == pytest.approx(0.0, abs=1e-12)


def test_equals_scikit_learn():
    cluster = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    generator = np.random.default_rng(0)
    phones = generator.integers(0, 7, 2000)
    units = (phones * 3 + generator.integers(0, 5, 2000)) % 20
    scores = score_units(count_pairs([(units, phones)], 20, 7))
    # homogeneity is 1 - H(class | cluster) / H(class), which is PNMI with phones as classes
    assert scores.pnmi == pytest.approx(cluster.homogeneity_score(phones, units), abs=1e-9)
    shared = cluster.mutual_info_score(phones, units)
    assert scores.pnmi == pytest.approx(shared / cluster.mutual_info_score(phones, phones), abs=1e-9)


def test_frame_labels_by_hand():
    labels = frame_labels(np.array([0.0, 0.05]), np.array([0.04, 0.09]), np.array([7, 8]), 6)
    # frames are read at 12.5, 32.5, 52.5, 72.5, 92.5 and 112.5 ms
    np.testing.assert_array_equal(labels, [7, 7, 8, 8, UNLABELLED, UNLABELLED])
    later = frame_labels(np.array([0.0, 0.05]), np.array([0.04, 0.09]), np.array([7, 8]), 6, offset_s=0.02)
    np.testing.assert_array_equal(later[:5], labels[1:])
    np.testing.assert_array_equal(frame_labels(np.zeros(0), np.zeros(0), np.zeros(0, int), 2), [-1, -1])


def test_counts_leave_out_what_has_no_label():
    pairs = [(np.array([0, 1, 1, 0]), np.array([0, -1, 1])), (np.array([2]), np.array([1]))]
    np.testing.assert_array_equal(count_pairs(pairs, 3, 2), [[1, 0], [0, 1], [0, 1]])


def test_equal_frames():
    generator = np.random.default_rng(0)
    phones = generator.integers(0, 10, 6000)
    random_units = generator.integers(0, 50, 6000)
    sets = {"all": [(random_units, phones)], "few": [(random_units[:500], phones[:500])]}
    biased = {name: score_units(count_pairs(pairs, 50, 10)).pnmi for name, pairs in sets.items()}
    equal = score_at_equal_frames(sets, 50, 10)
    assert biased["few"] > 5 * biased["all"]  # nothing is shared: all of it is the bias of small samples
    assert {s.frames for s in equal.values()} == {500}
    assert equal["few"].pnmi == pytest.approx(equal["all"].pnmi, rel=0.25)
    assert equal == score_at_equal_frames(sets, 50, 10)


def test_bitrate_by_hand():
    rows = [np.array([0, 1, 2, 3]), np.array([0, 1]), np.array([2, 3])]  # two bits each, eight of them
    assert bitrate(rows, 4) == pytest.approx(2 * 8 / 4)
    assert bitrate([np.array([7, 7, 7, 5])], 0.5) == pytest.approx((0.25 * 2 - 0.75 * np.log2(0.75)) * 8)
    assert bitrate([np.array([3, 3])], 1) == bitrate([], 1) == 0.0
    with pytest.raises(UserError, match="seconds is 0"):
        bitrate(rows, 0)


def test_errors():
    with pytest.raises(UserError, match="frames of the same signal"):
        count_pairs([(np.zeros(10, int), np.zeros(5, int))], 3, 2)
    with pytest.raises(UserError, match="highest ids"):
        count_pairs([(np.array([3]), np.array([0]))], 3, 2)
    with pytest.raises(UserError, match="labelled frames"):
        score_units(np.zeros((3, 2), int))
    with pytest.raises(UserError, match="smallest set"):
        score_at_equal_frames({"a": [(np.array([0]), np.array([0]))]}, 1, 1, frames=2)
    with pytest.raises(UserError, match="back in time"):
        frame_labels(np.array([1.0, 0.0]), np.array([2.0, 1.0]), np.array([0, 1]), 3)
