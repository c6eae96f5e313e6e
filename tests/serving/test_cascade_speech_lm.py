"""A cascade as a system: its modes, what of a clip each is told, batched as alone, scores, and what is refused."""

import jax
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken
from slm_jax.serving.cascade_speech_lm import CascadeDecoding
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, COARSE, drawn_cascade

SYSTEM = drawn_cascade()
RATE = SYSTEM.rate_hz
CLIPS = [noise(0.5, seed=1), noise(0.3, seed=2)]
ASKED = [spoken(clip, RATE) for clip in CLIPS]
KEYS = jax.random.split(jax.random.key(3), 2)
HOP = SYSTEM.codec.config.hop


def replies(mode, asked=ASKED, keys=KEYS, **changes):
    return SYSTEM.respond(asked, SYSTEM.decoding.replace(mode=mode, **changes), keys)


def sound(reply):
    return reply.messages[0].speech[0].samples


@pytest.fixture(scope="module")
def continued():
    return replies("continuation")


def test_a_continuation_begins_with_the_codes_of_its_clip(continued):
    new = round(SYSTEM.decoding.seconds * 50)
    for reply, clip, books in zip(continued, CLIPS, SYSTEM.encode(CLIPS), strict=True):
        known, codes = reply.trace["prompt_frames"], reply.trace["codes"]
        assert known == len(books["units"]) == len(clip) // HOP or abs(known - len(clip) // HOP) <= 3
        assert known < len(codes) <= known + new and codes.shape[1] == BOOKS
        np.testing.assert_array_equal(codes[:known], np.stack([books[n] for n in SYSTEM.cascade.sizes_of_codes], 1))
        assert len(sound(reply)) == len(codes) * HOP


def test_a_clip_gets_what_it_gets_alone(continued):
    (alone,) = replies("continuation", ASKED[1:], KEYS[1:])
    np.testing.assert_array_equal(alone.trace["codes"], continued[1].trace["codes"])
    np.testing.assert_allclose(sound(alone), sound(continued[1]), atol=1e-6)


def test_without_the_prompt_only_what_is_new_is_heard(continued):
    for reply, whole in zip(replies("continuation", with_prompt=False), continued, strict=True):
        np.testing.assert_array_equal(sound(reply), sound(whole)[whole.trace["prompt_frames"] * HOP :])


def test_acoustic_generation_knows_the_units_alone():
    for reply, books in zip(replies("acoustic"), SYSTEM.encode(CLIPS), strict=True):
        assert len(reply.trace["codes"]) == len(books["units"]) and reply.trace["prompt_frames"] == 0
        np.testing.assert_array_equal(reply.trace["units"], SYSTEM.deduplicated(books)["units"])
    drawn = replies("acoustic", keys=jax.random.split(jax.random.key(4), 2))
    assert any((a.trace["codes"] != b.trace["codes"]).any() for a, b in zip(drawn, replies("acoustic"), strict=True))


def test_detail_alone_is_written_anew():
    reads, writes = (list(names) for names in (SYSTEM.cascade.passes[-1].reads, SYSTEM.cascade.passes[-1].writes))
    books = list(SYSTEM.cascade.sizes_of_codes)
    anew = [books.index(name) for name in writes]
    for reply, known in zip(SYSTEM.detailed(CLIPS), SYSTEM.encode(CLIPS), strict=True):
        codes, recorded = reply.trace["codes"], np.stack([known[name] for name in books], axis=1)
        np.testing.assert_array_equal(codes[:, : len(reads)], recorded[:, : len(reads)])
        assert (codes[:, anew] != recorded[:, anew]).any()


def test_from_nothing_the_clip_does_not_matter():
    first, second = replies("unconditional"), replies("unconditional", ASKED[::-1])
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.trace["codes"], other.trace["codes"])
        assert 1 <= len(one.trace["codes"]) <= round(SYSTEM.decoding.seconds * 50)


def test_scores_are_of_the_passes_that_are_asked_for():
    books = [SYSTEM.deduplicated(one) for one in SYSTEM.encode(CLIPS)]
    runs, frames = [len(one["units"]) for one in books], [len(one["codes_0"]) for one in books]
    units = SYSTEM.log_prob(ASKED)
    assert [len(one) for one in units] == [count + 1 for count in runs] and all((one < 0).all() for one in units)
    both = drawn_cascade(scored=(0, 1)).log_prob(ASKED)
    coarse = [count * COARSE + 1 for count in frames]
    assert [len(one) for one in both] == [a + 1 + b for a, b in zip(runs, coarse, strict=True)]
    for one, other in zip(units, both, strict=True):
        np.testing.assert_allclose(other[: len(one)], one, atol=1e-5)
    fine = drawn_cascade(scored=(2,)).log_prob(ASKED)
    assert [len(one) for one in fine] == [count * (BOOKS - COARSE) for count in frames]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: CascadeDecoding(seconds=0.0), "seconds is 0.0: must be positive"),
        (lambda: SYSTEM.respond([spoken(noise(0.01), RATE)], None, KEYS[0]), "shorter than"),
        (lambda: SYSTEM.respond([spoken(np.full(9000, np.nan, np.float32), RATE)], None, KEYS[0]), "not finite"),
        (lambda: replies("continuation", temperatures=(1.0,)), "configs is 1: the cascade has 3 passes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(refused, message):
    with pytest.raises(UserError, match=message) as caught:
        refused()
    assert len(str(caught.value).splitlines()) == 1


def test_no_conversation_is_no_reply():
    assert SYSTEM.respond([], None, KEYS[0]) == []
