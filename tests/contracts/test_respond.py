"""The contract of `System.respond`: a reply depends on its conversation and its key, not on what else is in the batch.

A constant answer cannot pass: replies are long, varied, and no two of a batch are alike.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from slm_jax.core.contracts import Reply, Scores, System
from slm_jax.core.messages import Message, Text, spoken
from slm_jax.generation.sampling import SamplingConfig
from slm_jax.serving.speech_aware import AnswerDecoding
from slm_jax.serving.unit_speech_lm import UnitDecoding
from tests.assemblies.small_speech_aware import drawn_speech_aware
from tests.reference.drawn import drawn_listener
from tests.serving.drawn import drawn_unit_speech_lm, noise

SECONDS = (0.3, 4.0, 1.0, 30.0, 0.7, 2.0, 1.0, 0.5)
"""Prompts of a batch in turn: the longest stands beside the shortest."""
BATCH = 32
FEWER = (slice(0, 1), slice(3, 4), slice(0, 4))
"""The shortest prompt alone, the longest alone, and four."""
TOKENS, DISTINCT = 32, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """A system on drawn weights, its ways of decoding at least `TOKENS` tokens, and what it said, token by token."""

    system: Any
    ways: dict[str, Any]
    tokens: Callable[[Reply], list[str]]
    answer: tuple[Message, ...] = ()
    """What is scored, where that is an answer and not the prompt itself."""


def unit_speech_lm() -> Case:
    system = drawn_unit_speech_lm(units=60, vocabulary=64, width=32, scale=0.6)
    greedy = UnitDecoding(max_new=40, min_new=TOKENS, temperature=0.0, repetition_penalty=1.5, with_prompt=False)
    ways = {"greedy": greedy, "sampled": greedy.replace(temperature=1.0, top_k=20, repetition_penalty=1.0)}
    return Case(system, ways, lambda reply: [str(unit) for unit in reply.trace["new_units"]])


def listener() -> Case:
    greedy = SamplingConfig(max_new=40, min_new=TOKENS, temperature=0.0, repetition_penalty=1.5)
    ways = {"greedy": greedy, "sampled": greedy.replace(temperature=1.0, top_k=20, repetition_penalty=1.0)}
    return Case(drawn_listener(), ways, lambda reply: [str(unit) for unit in reply.trace["ids"]])


def speech_aware() -> Case:
    greedy = AnswerDecoding(max_new=40, min_new=TOKENS, repetition_penalty=1.5)
    ways = {"greedy": greedy, "sampled": greedy.replace(temperature=1.0, top_k=20, repetition_penalty=1.0)}
    answer = (Message("assistant", (Text("Nobody knows that."),)),)
    return Case(drawn_speech_aware(), ways, lambda reply: [str(unit) for unit in reply.trace["ids"]], answer)


CASES = {"unit speech LM": unit_speech_lm, "listener": listener, "speech-aware": speech_aware}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]()


@pytest.fixture(scope="module")
def conversations():
    return [spoken(noise(SECONDS[row % len(SECONDS)], seed=row), 16_000) for row in range(BATCH)]


def test_it_says_what_it_is(case):
    assert isinstance(case.system, System)
    assert case.system.reads <= {"speech", "text"}
    assert case.system.writes <= {"speech", "text"}


@pytest.mark.parametrize("way", [pytest.param("greedy", marks=pytest.mark.slow(seconds=20)), "sampled"])
def test_batched_equals_single(case, conversations, way):
    keys = jax.random.split(jax.random.key(3), len(conversations))
    decoding = case.ways[way]
    whole = case.system.respond(conversations, decoding, keys)
    said = [" ".join(case.tokens(reply)) for reply in whole]
    assert len(set(said)) == len(said)
    for reply in whole:
        assert len(case.tokens(reply)) >= TOKENS
        assert len(set(case.tokens(reply))) >= DISTINCT
        assert {kind for message in reply.messages for kind in message.kinds} == case.system.writes
    for rows in FEWER:
        alone = case.system.respond(conversations[rows], decoding, keys[rows])
        assert [" ".join(case.tokens(reply)) for reply in alone] == said[rows]
        for one, other in zip(alone, whole[rows], strict=True):
            same_speech(one, other)


def same_speech(one: Reply, other: Reply) -> None:
    """The clips of both agree but for rounding."""
    clips = [[clip.samples for message in reply.messages for clip in message.speech] for reply in (one, other)]
    for mine, wanted in zip(*clips, strict=True):
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(mine / scale, wanted / scale, atol=1e-5)


def test_other_keys_other_replies(case, conversations):
    few, decoding = conversations[:4], case.ways["sampled"]
    first, again, other = (case.system.respond(few, decoding, jax.random.key(seed)) for seed in (1, 1, 2))
    assert list(map(case.tokens, first)) == list(map(case.tokens, again))
    assert all(case.tokens(a) != case.tokens(b) for a, b in zip(first, other, strict=True))


def test_likelihood_does_not_depend_on_neighbours(case, conversations):
    if not isinstance(case.system, Scores):
        pytest.skip("this system does not score")
    few = [(*one, *case.answer) for one in conversations[:3]]
    together = case.system.log_prob(few)
    for row, one in enumerate(few):
        np.testing.assert_allclose(together[row], case.system.log_prob([one])[0], atol=1e-4)
        assert np.unique(together[row]).size > 2
