import dataclasses

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.evaluation.section import Lacking
from slm_jax.judges.continuations import continued, judge_continuations, ways_on
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.serving.drawn import drawn_unit_speech_lm, noise

TRAINING = [np.array([1, 2, 3, 4, 5])]


@pytest.fixture(scope="module")
def system():
    decoding = UnitDecoding(max_new=8, min_new=2)
    return drawn_unit_speech_lm(decoding=decoding, prompt_s=0.5)


def test_the_three_groups_go_on_from_the_same_openings(system):
    groups = continued(system, [noise(1.5), noise(0.9), noise(1.5, seed=1)], jax.random.key(0))
    assert list(groups) == ["real", "continuations", "shuffled real"]
    assert {len(rows) for rows in groups.values()} == {2}  # one is too short to have a rest
    for real, mixed in zip(groups["real"], groups["shuffled real"], strict=True):
        assert sorted(real) == sorted(mixed)
    figures, sounds = judge_continuations(system, groups, TRAINING, None)
    assert figures["real"].keys() == figures["continuations"].keys()
    assert figures["real"]["bigram_entropy"] > 0
    assert [len(clips) for clips in sounds.values()] == [2, 2, 2]


def test_where_every_continuation_is_empty_the_others_are_judged_all_the_same(system):
    real = [np.array([1, 2, 3, 4]), np.array([5, 6])]
    full = {"real": real, "continuations": [np.array([3, 1])], "shuffled real": real[::-1]}
    empty = {**full, "continuations": [np.zeros(0, int)] * 2}
    figures, sounds = judge_continuations(system, empty, TRAINING, None)
    assert set(figures["continuations"].values()) == {None}
    assert figures["continuations"].keys() == figures["real"].keys()
    assert sounds["continuations"] == []
    # all six units count: nothing is cut to the length of what is empty
    cut = judge_continuations(system, full, TRAINING, None)[0]
    assert figures["real"]["bigram_entropy"] > cut["real"]["bigram_entropy"]


def test_without_a_rest_there_is_nothing_to_go_on_from(system):
    with pytest.raises(Lacking, match="no held-out utterance is longer than 1 s"):
        continued(system, [noise(0.9)], jax.random.key(0))


def test_the_shown_ways_begin_with_the_prompt_and_differ(system):
    prompt = noise(0.5)
    ways = ways_on(dataclasses.replace(system, decoding=system.decoding.replace(with_prompt=False)), prompt)
    assert [clip.name for clip in ways] == [f"continuation_{number}" for number in range(1, 5)]
    least = len(system.decode([system.encode([prompt])[0].runs])[0])
    assert all(len(clip.samples) > least for clip in ways)
    assert len({clip.samples.tobytes() for clip in ways}) > 1


def test_a_missing_split_is_a_mistake_of_nobody():
    assert issubclass(Lacking, UserError)
