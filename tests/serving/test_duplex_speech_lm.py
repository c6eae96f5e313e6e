"""Hearing and speaking at once as a system: alone as in a batch, and as its own session says it."""

import jax
import numpy as np
import pytest

from slm_jax.core.contracts import Opens, System
from slm_jax.core.errors import UserError
from slm_jax.core.messages import spoken, written
from slm_jax.layouts.said import said_of
from slm_jax.serving.duplex_speech_lm import DuplexDecoding
from slm_jax.serving.rooms import Room
from tests.serving.drawn import noise
from tests.serving.drawn_cascade import BOOKS, CODES
from tests.serving.drawn_codes import drawn_duplex
from tests.serving.talking import until
from tests.serving.test_rooms import Listener

CLIPS = [noise(0.3, seed=1), noise(0.2, seed=2), noise(0.3, seed=3)]
TWO = np.ones(2, bool)
KEYS = jax.random.split(jax.random.key(3), 3)
LIKELIEST = DuplexDecoding(seconds=0.1, temperature=0.0, text_temperature=0.0)


@pytest.fixture(scope="module")
def system():
    return drawn_duplex()


def test_each_clip_gets_what_it_gets_alone(system):
    assert isinstance(system, System) and isinstance(system, Opens)
    asked = [spoken(clip, system.rate_hz) for clip in CLIPS]
    replies = system.respond(asked, None, KEYS)
    for clip, reply in zip(CLIPS, replies, strict=True):
        heard, codes = reply.trace["heard_frames"], reply.trace["codes"]
        assert heard == system.codec.frame_count(len(clip)) and codes.shape == (heard + 5, BOOKS)
        assert codes.min() >= 0 and codes.max() < CODES
        assert len(reply.messages[0].speech[0].samples) == len(codes) * system.codec.config.hop
    assert len({reply.messages[0].text for reply in replies}) == 3
    for place in (1, 2):
        (alone,) = system.respond(asked[place : place + 1], None, KEYS[place : place + 1])
        np.testing.assert_array_equal(alone.trace["codes"], replies[place].trace["codes"])
        assert alone.messages[0].text == replies[place].messages[0].text


def test_its_session_says_what_it_says_offline(system):
    session = drawn_duplex(decoding=LIKELIEST).open(3)
    frames = 12
    clips = [np.resize(clip, frames * session.hop) for clip in CLIPS]
    offline = system.beside(clips, LIKELIEST, KEYS)
    found = []
    for t in range(frames):
        session.push(np.stack([clip[t * session.hop : (t + 1) * session.hop] for clip in clips]), np.ones(3, bool))
        found.append(session.ids)
    ids, size = np.stack(found, 1), system.rows.tokenizer.size
    for row, (text, codes) in enumerate(offline):
        np.testing.assert_array_equal(ids[row, :-1, 1], codes[1:, 0])
        written = ids[row, :, 0][ids[row, :, 0] < size]
        np.testing.assert_array_equal(written, text[len(text) - len(written) :])


def test_who_writes_both_sides_goes_on_with_both():
    both, own = drawn_duplex(written=1 + 2 * BOOKS), drawn_duplex()
    sides = [np.random.default_rng(seed).integers(CODES, size=(6, BOOKS)) for seed in (0, 1)]
    (((_, mine), theirs),) = both.continued(sides[:1], sides[1:], LIKELIEST, KEYS[:1])
    assert mine.shape == theirs.shape == (11, BOOKS)
    np.testing.assert_array_equal(mine[:6], sides[0])
    np.testing.assert_array_equal(theirs[:6], sides[1])
    assert theirs[6:].min() >= 0
    with pytest.raises(UserError, match="does not write the side that it hears"):
        own.continued(sides[:1], sides[1:], LIKELIEST, KEYS[:1])
    (((_, mine), theirs),) = own.continued(sides[:1], None, LIKELIEST, KEYS[:1])
    np.testing.assert_array_equal(mine[:6], sides[0])
    assert mine.shape == (11, BOOKS) and theirs.shape == (0, BOOKS)


def test_shifted_text_writes_what_is_heard_and_says_what_is_read():
    base = drawn_duplex()
    behind, ahead = (
        drawn_duplex(rows=base.rows.replace(layout=base.rows.layout.replace(ahead=ahead))) for ahead in (-3, 2)
    )
    codes = [np.random.default_rng(seed).integers(CODES, size=(6 + seed, BOOKS)) for seed in (0, 1)]
    texts = behind.written(codes, LIKELIEST, KEYS[:2])
    assert all(0 < len(text) <= 10 for text in texts)
    np.testing.assert_array_equal(behind.written(codes[1:], LIKELIEST, KEYS[1:2])[0], texts[1])
    said = said_of([np.array([1, 2]), np.array([3])], np.array([[1, 2], [5, 6]]))
    other = said_of([np.array([4, 2]), np.array([5])], np.array([[1, 2], [5, 6]]))
    one, two = ahead.spoken([said, other], [8, 8], LIKELIEST, KEYS[:2])
    assert one.shape == (8, BOOKS) and one.min() >= 0 and not np.array_equal(one, two)


def test_what_cannot_be_heard_is_refused(system):
    with pytest.raises(UserError, match="this system reads speech only"):
        system.respond([written("hello")], None, KEYS[:1])
    with pytest.raises(UserError, match="seconds is -1"):
        DuplexDecoding(seconds=-1.0)
    assert system.respond([], None, jax.random.split(jax.random.key(0), 0)) == []


def test_in_a_room_each_hears_and_reads_what_they_would_alone():
    """Two people at two seats; what is drawn is the likeliest, so that a row is known by what it hears."""
    system, frames = drawn_duplex(decoding=LIKELIEST), 12
    hop = system.codec.config.hop
    clips = [np.resize(clip, frames * hop) for clip in CLIPS[:2]]
    alone = system.open(2)
    known = [alone.push(np.stack([clip[t * hop : (t + 1) * hop] for clip in clips]), TWO) for t in range(frames)]
    with Room(system.open(2)) as room:
        listeners = [Listener(room), Listener(room)]
        for listener, clip in zip(listeners, clips, strict=True):
            listener.seat.hear(clip)
        until(lambda: all(len(listener.said) == frames for listener in listeners))
    for row, listener in enumerate(listeners):
        np.testing.assert_array_equal(listener.heard(), np.stack([spoken.samples[row] for spoken in known]))
        assert [one.text for one in listener.said] == [spoken.texts[row] for spoken in known]
    assert any(one.text for one in listeners[0].said)
