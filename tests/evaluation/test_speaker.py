"""Cosines and identification of speakers, on vectors whose figures are known."""

import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.speaker import identify, pair_similarities, similarities, speaker_vectors


def test_cosines_do_not_see_lengths():
    found = similarities(np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[0.5, 0.0], [0.0, -2.0]]))
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.5**0.5, -(0.5**0.5)], [0.0, 0.0]], atol=1e-12)


def test_speakers_are_mean_directions_in_order_of_name():
    vectors = np.array([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0], [5.0, 0.0]])
    names, voices = speaker_vectors(vectors, ["b", "b", "a", "c"])
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(voices, [[0.0, 1.0], [0.5**0.5, 0.5**0.5], [1.0, 0.0]], atol=1e-12)
    assert speaker_vectors(np.zeros((0, 2)), [])[0] == []
    with pytest.raises(UserError, match=r"vectors, speakers is \(4, 1\)"):
        speaker_vectors(vectors, ["a"])


def test_the_nearest_is_right_or_not():
    cosines = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.0, 0.2, 0.3], [0.4, 0.3, 0.6]])
    found = identify(cosines, [0, 1, 2, 2])
    assert found.accuracy == 0.75
    assert found.interval is not None and 0.0 < found.interval[0] < 0.75 < found.interval[1] <= 1.0
    assert (found.clips, found.candidates) == (4, 3)
    assert found.own == pytest.approx((0.9 + 0.5 + 0.3 + 0.6) / 4)
    assert found.best_other == pytest.approx((0.2 + 0.8 + 0.2 + 0.4) / 4)
    assert found.to_json()["accuracy"] == 0.75


def test_ties_are_shared():
    """An encoder that says the same of everyone is right by chance, wherever the right one stands."""
    for right in range(4):
        assert identify(np.ones((3, 4)), [right] * 3).accuracy == 0.25
    assert identify(np.array([[0.5, 0.5, 0.1]]), [1]).accuracy == 0.5
    assert identify(np.array([[0.5, 0.5, 0.9]]), [1]).accuracy == 0.0
    assert identify(np.array([[0.5, 0.1]]), [0]).interval is None


def test_chance_and_separated_voices():
    rng = np.random.default_rng(0)
    voices, right = rng.standard_normal((5, 16)), rng.integers(5, size=400)
    unrelated = identify(similarities(rng.standard_normal((400, 16)), voices), right)
    assert unrelated.interval[0] < 0.2 < unrelated.interval[1]
    heard = voices[right] + 0.3 * rng.standard_normal((400, 16))
    found = identify(similarities(heard, voices), right)
    assert found.accuracy > 0.95
    assert found.own > found.best_other + 0.3
    assert found == identify(similarities(heard, voices), right), "the same seed, the same interval"


@pytest.mark.parametrize("cosines, right", [(np.ones((2, 1)), [0, 0]), (np.ones((2, 3)), [0]), (np.ones((0, 3)), []),
                                            (np.ones((1, 3)), [3]), (np.ones((1, 3)), [-1])])  # fmt: skip
def test_what_is_no_choice_is_refused(cosines, right):
    with pytest.raises(UserError):
        identify(cosines, right)


def test_pairs_of_one_speaker_and_of_two():
    vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    same, other = pair_similarities(vectors, ["a", "a", "b"])
    assert same.tolist() == [1.0]
    assert other.tolist() == [0.0, 0.0]
