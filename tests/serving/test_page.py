"""The page in a headless Chromium that hears a recording: it sounds, draws and measures."""

import asyncio

import numpy as np
import pytest

from slm_jax.audio.files import write_wav
from slm_jax.serving.replies import Replies
from slm_jax.serving.rooms import Room
from slm_jax.serving.web.site import Site, served
from slm_jax.serving.web.sound import RATE_HZ
from tests.serving.chromium import PROGRAM, browsing
from tests.serving.drawn_slm import drawn_slm
from tests.serving.talking import SYSTEM, tone

pytestmark = [
    pytest.mark.slow(seconds=60),
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here: apt-get install chromium"),
]


@pytest.fixture
def microphone(tmp_path):
    """Half a second of a hum, half of silence, again and again."""
    return write_wav(tmp_path / "hum.wav", np.concatenate([tone(0.5), np.zeros(RATE_HZ // 2, np.float32)]), RATE_HZ)


def run(what):
    return asyncio.run(asyncio.wait_for(what, 200))


def test_an_open_microphone_is_heard_while_it_is_open(microphone, tmp_path):
    async def talk(address):
        async with browsing(address, microphone, tmp_path / "profile") as browser:
            await browser.until("window.talk && window.talk.about !== null")
            assert await browser.value("document.querySelector('#speak').textContent") == "Start talking"
            assert await browser.value("document.querySelector('#write').hidden")  # it reads no text
            await browser.press("#speak")
            await browser.until("window.talk.frames >= 25")
            loud = await browser.value("Math.max(...window.talk.them.peaks)")
            drawn = await browser.value(ink("them"))
            waited = await browser.value("[window.talk.delays.trip, window.talk.delays.model]")
            await browser.press("#speak")
            await browser.until("window.talk.socket.readyState === 3")
            heard = await browser.value("window.talk.you === null")
            return loud, drawn, waited, heard, await browser.value("[window.talk.frames, window.talk.trouble]")

    with Room(SYSTEM.open(2)) as room, served(Site("echo", SYSTEM, room)) as address:
        loud, drawn, (trips, model), over, (frames, trouble) = run(talk(address))
        pushes = room.figures()["pushes"]
    assert loud > 0.1 and drawn > 100, "what the model says is seen"
    assert len(trips) >= 20 and np.median(trips) > np.median(model) > 0
    assert over and trouble == "" and frames == pushes >= 25


def ink(who):
    """JavaScript: how many pixels of a waveform are drawn."""
    return (
        f"(() => {{ const c = document.querySelector('.{who} canvas');"
        " const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        " return data.filter((value, place) => place % 4 === 3 && value).length; })()"
    )


def test_push_to_talk_is_answered_when_it_is_released_and_words_when_they_are_sent(microphone, tmp_path):
    async def talk(address):
        async with browsing(address, microphone, tmp_path / "profile") as browser:
            await browser.until("window.talk && window.talk.about !== null")
            place = await browser.press("#speak", release=False)
            await browser.until("window.talk.you !== null && window.talk.you.samples > 12000")
            assert await browser.value("document.querySelector('#speak').textContent") == "Release to send"
            await browser.mouse("mouseReleased", place)
            await browser.until("window.talk.delays.model.length === 1")
            spoken = await browser.value("document.querySelector('.them p').textContent")
            await browser.value("document.querySelector('#words').value = 'What?'")
            await browser.press("#write button")
            await browser.until("window.talk.delays.model.length === 2")
            written = await browser.value("[...document.querySelectorAll('.turn p')].map((p) => p.textContent)")
            return spoken, written, await browser.value("[window.talk.trouble, window.talk.delays.trip.length]")

    system = drawn_slm()
    with Replies(system) as replies, served(Site("words", system, replies)) as address:
        spoken, written, rest = run(talk(address))
    assert spoken and written[:3] == ["", spoken, "What?"] and written[3] and rest == ["", 2]
