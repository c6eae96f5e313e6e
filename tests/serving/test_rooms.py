"""Rooms: what each hears is what they would hear alone, to the bit, whatever the others do."""

import time

import numpy as np
import pytest

from slm_jax.core.contracts import Session, Spoken
from slm_jax.core.errors import UserError
from slm_jax.serving.delays import Delays
from slm_jax.serving.pace import HASTE, MADE_UP, Pace
from slm_jax.serving.rooms import Room
from slm_jax.serving.seats import Full
from tests.serving.talking import FRAME_S, HOP, alone, echo, until, voice


class Listener:
    """Sits down, and keeps what is said as it comes."""

    def __init__(self, room):
        self.said = []
        self.seat = room.take(self.fetch)

    def fetch(self):
        if hasattr(self, "seat") and self.seat.has_said:
            self.said += self.seat.fetch()

    def heard(self):
        """What was said so far, [T, hop]."""
        assert [one.number for one in self.said] == list(range(len(self.said)))
        return np.stack([one.samples for one in self.said])


@pytest.fixture
def room():
    with Room(echo()) as room:
        yield room


def ragged(seat, samples, seed=0, pause_s=0.0):
    """Sound in pieces of any length."""
    rng, start = np.random.default_rng(seed), 0
    while start < len(samples):
        stop = start + int(rng.integers(1, 3 * HOP))
        seat.hear(samples[start:stop])
        time.sleep(pause_s)
        start = stop


def test_ragged_sound_comes_back_as_if_it_were_pushed_frame_by_frame(room):
    assert isinstance(room.session, Session)
    listener, samples = Listener(room), voice(25)
    ragged(listener.seat, samples)
    until(lambda: len(listener.said) == 25)
    np.testing.assert_array_equal(listener.heard(), alone(samples, row=0))
    assert all(one.queue_s >= 0 and one.model_s > 0 and one.text == "" for one in listener.said)
    assert listener.seat.hear(samples[:7]) == 25 and listener.seat.fill_up() == 26
    until(lambda: len(listener.said) == 26)


def test_whatever_others_do_no_bit_of_ones_own_changes():
    with Room(echo(), said_s=5 * FRAME_S) as room:
        listener, leaves, deaf = Listener(room), Listener(room), room.take(lambda: None)
        samples, noise = voice(40), voice(40, seed=1)
        for frame in range(40):
            part = slice(frame * HOP, (frame + 1) * HOP)
            listener.seat.hear(samples[part])
            if frame < 10:
                leaves.seat.hear(noise[part])
            if deaf.lost is None:
                deaf.hear(noise[part])
            with pytest.raises(UserError, match="must be finite"):
                leaves.seat.hear(np.full(HOP, np.nan, np.float32))
            if frame == 10:
                room.leave(leaves.seat)
                late = Listener(room)
                assert late.seat.row == leaves.seat.row
                late.seat.hear(noise[: 12 * HOP])
            time.sleep(FRAME_S / 2)
        until(lambda: len(listener.said) == 40 and len(late.said) == 12)
        assert deaf.lost == "5 frames were said and not fetched"
        assert Listener(room).seat.row == deaf.row  # the seat is another's now
        np.testing.assert_array_equal(listener.heard(), alone(samples, row=0))
        np.testing.assert_array_equal(late.heard(), alone(noise[: 12 * HOP], row=1))


def test_a_client_that_cannot_be_woken_is_not_the_rooms_mistake(room):
    def wake():
        raise RuntimeError("gone")

    gone, listener = room.take(wake), Listener(room)
    for seat in (gone, listener.seat):
        seat.hear(voice(2))
    until(lambda: len(listener.said) == 2 and len(gone.fetch()) == 2)
    assert room.fault is None


def test_there_are_so_many_seats_and_what_waits_is_bounded():
    with Room(echo(), heard_s=3 * FRAME_S) as room:
        (listener, *_), samples = [Listener(room) for _ in range(3)], voice(6)
        with pytest.raises(UserError, match="all 3 seats are taken"):
            room.take(lambda: None)
        with pytest.raises(Full, match="3 frames wait already"):
            listener.seat.hear(samples)
        listener.seat.hear(samples[: 2 * HOP])
        until(lambda: len(listener.said) == 2)
        np.testing.assert_array_equal(listener.heard(), alone(samples[: 2 * HOP], row=0))


def test_a_row_that_begins_anew_has_forgotten_and_what_was_forgotten_is_not_heard(room):
    listener, samples = Listener(room), voice(5)
    ragged(listener.seat, samples)
    until(lambda: len(listener.said) == 5)
    listener.seat.begin_anew()
    listener.said.clear()
    ragged(listener.seat, samples)
    until(lambda: len(listener.said) == 5)
    np.testing.assert_array_equal(listener.heard(), alone(samples, row=0))
    listener.seat.hear(samples[:7])
    assert listener.seat.forget() == 5
    listener.seat.hear(samples[: HOP - 7])
    time.sleep(4 * FRAME_S)
    assert len(listener.said) == 5


class Broken:
    """A session that stops working, or says what is no sound in row 1."""

    def __init__(self, session, error=None):
        self.session, self.error = session, error
        self.batch, self.hop, self.rate_hz = session.batch, session.hop, session.rate_hz
        self.reset, self.breaks = session.reset, False

    def push(self, samples, active):
        spoken = self.session.push(samples, active)
        if self.breaks and self.error:
            raise self.error
        broken = spoken.samples.copy()
        broken[1] = np.nan
        return Spoken(broken, spoken.texts) if self.breaks else spoken


def test_a_model_that_fails_is_said_to_everybody():
    session = Broken(echo(), ValueError("out of memory"))
    with Room(session) as room:
        session.breaks = True
        both = [Listener(room), Listener(room)]
        both[0].seat.hear(voice(1))
        until(lambda: all(one.seat.lost for one in both))
        assert both[1].seat.lost == "the model failed: out of memory"
        with pytest.raises(UserError, match="the seat is lost: the model failed: out of memory"):
            both[1].seat.fetch()
        with pytest.raises(UserError, match="out of memory"):
            room.take(lambda: None)


def test_sound_that_is_not_finite_takes_no_other_seat_with_it():
    session = Broken(echo())
    with Room(session) as room:
        session.breaks = True
        both, samples = [Listener(room), Listener(room)], voice(6)
        for one in both:
            one.seat.hear(samples)
        until(lambda: len(both[0].said) == 6)
        assert both[1].seat.lost == "what the model says is not finite" and not both[1].said
        np.testing.assert_array_equal(both[0].heard(), alone(samples, row=0))


def test_pushes_follow_each_other_no_quicker_than_people_speak():
    with Room(echo()) as room:
        listener, start = Listener(room), time.monotonic()
        listener.seat.hear(voice(30))
        until(lambda: len(listener.said) == 30)
        assert time.monotonic() - start > (30 - MADE_UP - 2) * FRAME_S / HASTE
        assert room.figures()["pushes"] == room.figures()["count"] == 30


def test_when_a_push_is_due():
    pace = Pace(0.08)
    assert pace.next_at([5.0, 5.03], complete=True) == 5.0  # everybody is heard
    assert pace.next_at([5.0, 5.03], complete=False) == 5.08  # somebody is awaited, for a frame at most
    for number in range(MADE_UP + 1):  # a few may follow at once ...
        assert pace.next_at([5.0], complete=True) == 5.0
        pace.pushed(5.0 + 1e-6 * number)
    assert pace.next_at([5.0], complete=True) == pytest.approx(5.0 + (MADE_UP + 1) * 0.08 / HASTE - MADE_UP * 0.08)
    for _ in range(100):  # ... and then one in a frame
        pace.pushed(pace.next_at([5.0], complete=True))
    assert pace.next_at([5.0], complete=True) > 5.0 + 90 * 0.08 / HASTE


def test_delays_are_percentiles_and_nothing_where_nothing_was_measured():
    delays = Delays()
    assert delays.figures() == {"count": 0} | {
        f"{part}_{name}": None for part in ("queue", "model", "out") for name in ("p50", "p90", "p99", "mean")
    }
    for ms in range(101):
        delays.waited(ms / 1000, 0.03)
    figures = delays.figures()
    assert (figures["count"], figures["queue_p50"], figures["model_mean"]) == (101, 0.05, pytest.approx(0.03))
    assert figures["queue_p99"] == pytest.approx(0.099) and figures["out_p50"] is None
