"""Replies: a queue of conversations, each answered as it would be alone."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken, written
from slm_jax.serving.replies import Replies
from tests.serving.drawn_slm import asked, drawn_slm, voice
from tests.serving.talking import SYSTEM, until

QUESTIONS = [asked(voice(0.3, seed), f"{seed}?") for seed in range(3)]


@pytest.fixture(scope="module")
def system():
    return drawn_slm()


@pytest.fixture(scope="module")
def expected(system):
    key = jax.random.key(5)
    keys = [jax.random.fold_in(key, turn)[None] for turn in range(3)]
    return [words(system.respond([one], None, own)[0]) for one, own in zip(QUESTIONS, keys, strict=True)]


def words(reply):
    return reply.messages[0].text


@pytest.mark.parametrize("together", [1, 3])
def test_each_gets_the_reply_that_it_would_get_alone(system, expected, together):
    found = {}
    with Replies(system, together=together, seed=5) as replies:
        for turn, one in enumerate(QUESTIONS):
            replies.ask(one, turn, lambda answered, turn=turn: found.setdefault(turn, answered))
        until(lambda: len(found) == 3, 120)
        figures = replies.figures()
    assert [words(found[turn].reply) for turn in range(3)] == expected and len(set(expected)) == 3
    assert all(one.fault is None and one.queue_s >= 0 and one.model_s > 0 for one in found.values())
    assert figures["count"] == 3


def test_one_that_cannot_be_answered_takes_no_other_with_it(system, expected):
    found = {}
    nothing = spoken(np.zeros(0, np.float32), 16_000)
    with Replies(system, together=3, seed=5) as replies:
        with replies._changed:  # so that all three wait when it looks
            for turn, one in enumerate((QUESTIONS[0], nothing, QUESTIONS[2])):
                replies.ask(one, turn, lambda answered, turn=turn: found.setdefault(turn, answered))
        until(lambda: len(found) == 3, 120)
    assert [words(found[turn].reply) for turn in (0, 2)] == [expected[0], expected[2]]
    assert found[1].reply is None and "something to hear" in found[1].fault


def test_what_is_dropped_is_not_answered_and_what_cannot_be_read_is_refused_at_once(system):
    found = []
    with Replies(system) as replies:
        with replies._changed:
            dropped = replies.ask(QUESTIONS[0], 0, found.append)
            replies.ask(QUESTIONS[1], 1, found.append)
            dropped.drop()
        until(lambda: found, 120)
    assert len(found) == 1 and replies.figures()["count"] == 1
    with pytest.raises(UserError, match="holds text: this system reads speech only"):
        Replies(SYSTEM).ask(written("a"), 0, found.append)
