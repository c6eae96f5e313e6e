"""The published Python client of OpenAI's Realtime API talks to the site as to its own."""

import asyncio
import base64

import numpy as np
import pytest

from slm_jax.serving.replies import Replies
from slm_jax.serving.rooms import Room
from slm_jax.serving.web.site import Site, served
from slm_jax.serving.web.sound import base64_of
from tests.serving.drawn_slm import drawn_slm
from tests.serving.talking import SYSTEM, alone, echo, tone, voice

openai = pytest.importorskip("openai", reason="the published client is not installed: pip install 'openai[realtime]'")
pytest.importorskip("websockets", reason="openai[realtime] brings it")


def client_of(address):
    """The client with another address, as for a proxy."""
    base = address.replace("http://", "ws://") + "/v1"
    return openai.AsyncOpenAI(api_key="none is asked for", websocket_base_url=base)


async def until(connection, kind, events):
    """Events up to the first of a kind; every one is of the type that the package has for it."""
    async for event in connection:
        assert type(event).__module__.startswith("openai.types.realtime"), event
        assert event.type in type(event).model_fields["type"].annotation.__args__, event
        type(event).model_validate(event.model_dump())  # no field is missing and none of another type
        events.append(event)
        if event.type == kind:
            return event
    raise AssertionError(f"{kind} never came")


def test_it_hears_itself_through_a_codec():
    samples = voice(20)

    async def talk(address):
        events = []
        async with client_of(address).realtime.connect(model="echo") as connection:
            created = await until(connection, "session.created", events)
            assert created.session.model == "echo" and created.session.output_modalities == ["audio"]
            audio = {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None}}
            await connection.session.update(session={"type": "realtime", "audio": audio})
            await until(connection, "session.updated", events)
            for start in range(0, len(samples), 1500):
                await connection.input_audio_buffer.append(audio=base64_of(samples[start : start + 1500]))
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            done = await until(connection, "response.done", events)
            assert done.response.status == "completed"
        return b"".join(base64.b64decode(one.delta) for one in events if one.type == "response.output_audio.delta")

    with Room(echo()) as room, served(Site("echo", SYSTEM, room)) as address:
        heard = asyncio.run(asyncio.wait_for(talk(address), 120))
    expected = np.clip(alone(samples, row=0).reshape(-1), -1, 1)
    assert heard == np.round(expected * 32767).astype("<i2").tobytes()


def test_it_asks_in_sound_and_words_and_reads_the_answer():
    async def talk(address):
        events = []
        async with client_of(address).realtime.connect(model="words") as connection:
            await connection.input_audio_buffer.append(audio=base64_of(tone(0.5)))
            await connection.input_audio_buffer.commit()
            content = [{"type": "input_text", "text": "What?"}]
            await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
            await connection.response.create()
            done = await until(connection, "response.done", events)
            await connection.response.cancel()
            assert (await until(connection, "error", events)).error.code == "response_cancel_not_active"
        words = "".join(one.delta for one in events if one.type == "response.output_text.delta")
        assert words and done.response.output[0].content[0].text == words
        return [one.type for one in events]

    system = drawn_slm()
    with Replies(system) as replies, served(Site("words", system, replies)) as address:
        kinds = asyncio.run(asyncio.wait_for(talk(address), 120))
    assert kinds[:6] == [
        "session.created",
        "input_audio_buffer.committed",
        *("conversation.item.added", "conversation.item.done") * 2,
    ]
    assert kinds.count("response.output_text.done") == kinds.count("response.content_part.done") == 1
