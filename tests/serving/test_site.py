"""The site over real sockets: events in, events out, and bad clients who disturb nobody."""

import asyncio
import contextlib
import json
import socket

import numpy as np
import pytest

from slm_jax.serving.rooms import Room
from slm_jax.serving.web import connection
from slm_jax.serving.web.events import Ids
from slm_jax.serving.web.limits import Limits
from slm_jax.serving.web.open_talk import OpenSide
from slm_jax.serving.web.settings import SessionSettings
from slm_jax.serving.web.site import Site, served
from slm_jax.serving.web.sound import RATE_HZ, base64_of
from slm_jax.serving.web.talk import Talk
from tests.serving.talking import (
    BEGIN,
    END,
    HOP,
    SYSTEM,
    alone,
    as_bytes,
    connected,
    echo,
    run,
    spoken,
    taken,
    until,
    voice,
)


@pytest.fixture(scope="module")
def room():
    with Room(echo(whose="the room's")) as room:
        yield room


@pytest.fixture(scope="module")
def open_site(room):
    with served(Site("echo", SYSTEM, room)) as address:
        yield address


def test_an_open_microphone_is_answered_frame_by_frame_until_the_commit(open_site):
    samples = voice(12)[:-100]  # the last frame is filled up with silence
    client = run(spoken(open_site, samples))
    assert client.sound() == as_bytes(alone(np.append(samples, np.zeros(100, np.float32)), row=0))
    deltas = [event for event in client.events if event["type"] == "response.output_audio.delta"]
    assert [event["frame"] for event in deltas] == list(range(12))
    assert all(set(event["latency_ms"]) == {"queue", "model", "out"} for event in deltas)
    kinds = [kind for kind in client.kinds() if kind in {*BEGIN, *END} and not kind.startswith("conversation")]
    assert kinds == [kind for kind in BEGIN + END if not kind.startswith("conversation")]
    created = client.events[0]["session"]
    assert created["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": RATE_HZ}
    assert created["slm_jax"]["microphone"] == "open" and created["slm_jax"]["frame_ms"] == 20
    assert len({event["event_id"] for event in client.events}) == len(client.events)


def test_a_response_may_be_cancelled_and_the_row_begins_anew(open_site):
    samples = voice(6)

    async def twice():
        async with connected(open_site) as client:
            await client.say(samples)
            await client.until("response.output_audio.delta")
            await client.send("response.cancel")
            done = await client.until("response.done")
            client.events.clear()
            await client.send("response.cancel")
            assert (await client.error())["code"] == "response_cancel_not_active"
            await client.say(samples)
            await client.send("input_audio_buffer.commit")
            await client.until("response.done")
            return done, client

    done, client = run(twice())
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert client.sound() == as_bytes(alone(samples, row=0))


def test_nothing_of_a_cancelled_response_follows_its_end():
    """Also where it was on its way: the writer is stopped after every single event."""
    with Room(echo()) as room:
        side = OpenSide(room, lambda: None)
        talk = Talk(SessionSettings("s", "echo", SYSTEM.writes, {}), side, Ids())
        talk.take(json.dumps({"type": "input_audio_buffer.append", "audio": base64_of(voice(4))}))
        until(lambda: room.pushes == 4)
        events = []
        for event in talk.events():
            events.append(event)
            if event["type"] == "response.output_audio.delta":
                talk.take('{"type": "response.cancel"}')
        assert list(talk.events()) == []
        kinds = [event["type"] for event in events]
        assert kinds.count("response.created") == kinds.count("response.output_audio.delta") == 1
        assert kinds[-1] == "response.done" and events[-1]["response"]["status"] == "cancelled"
        side.leave()


BAD = {
    "broken JSON": ("{", "invalid_json"),
    "another NaN": ('{"type": "session.update", "session": {"speed": NaN}}', "invalid_json"),
    "deep": ("[" * 100_000, "invalid_json"),
    "no object": ("[1]", "invalid_event"),
    "no type": ("{}", "invalid_event"),
    "unknown": ('{"type": "conversation.item.truncate"}', "unknown_event"),
    "no base64": ('{"type": "input_audio_buffer.append", "audio": "???"}', "invalid_audio"),
    "half a sample": ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_audio"),
    "no audio": ('{"type": "input_audio_buffer.append", "audio": 3}', "invalid_audio"),
    "wrong rate": (
        '{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}}',
        "invalid_value",
    ),
    "turns": (
        '{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}}',
        "unsupported_field",
    ),
    "a voice": ('{"type": "session.update", "session": {"instructions": "be brief"}}', "unsupported_field"),
    "text alone": ('{"type": "session.update", "session": {"output_modalities": ["text"]}}', "invalid_value"),
    "no session": ('{"type": "session.update", "session": []}', "invalid_value"),
    "no item": ('{"type": "conversation.item.create", "item": {"type": "function_call"}}', "invalid_value"),
    "words": (
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [{}]}}',
        "unsupported_item",
    ),
    "nothing said": ('{"type": "response.create"}', "nothing_to_answer"),
    "nothing heard": ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
}


def test_garbage_is_one_error_each_and_others_hear_no_bit_of_it(open_site):
    samples = voice(50)

    async def beside():
        good = asyncio.create_task(spoken(open_site, samples, pause_s=0.02))
        await asyncio.sleep(0.1)
        async with connected(open_site) as bad:
            for text, code in BAD.values():
                await bad.socket.send_str(text)
                error = await bad.error()
                assert (error["code"], error["type"]) == (code, "invalid_request_error"), text[:80]
            await bad.socket.send_bytes(b"\x00\xff")
            assert (await bad.error())["code"] == "invalid_event"
            await bad.socket.send_json({"type": "nothing", "event_id": "mine"})
            assert (await bad.error())["event_id"] == "mine"
            assert not good.done()
            await bad.say(voice(3, seed=1))  # and still speaks
            await bad.until("response.output_audio.delta")
        return await good

    assert run(beside()).sound() == as_bytes(alone(samples, row=0))


def test_a_client_that_is_killed_or_does_not_read_loses_its_seat_alone(monkeypatch):
    """Somebody speaks until the seats of both are free again."""
    monkeypatch.setattr(connection, "UNREAD_BYTES", 2048)  # or the system reads for the deaf one for seconds
    samples, free = voice(1000), asyncio.Event()
    with Room(echo(), said_s=0.2) as room, served(Site("echo", SYSTEM, room, limits=Limits(patience_s=0.5))) as address:

        async def speaks():
            async with connected(address) as client:
                for frame in range(1000):
                    await client.say(samples[frame * HOP : (frame + 1) * HOP], pause_s=0.02)
                    if free.is_set():
                        break
                await client.send("input_audio_buffer.commit")
                await client.until("response.done")
                return client.sound(), frame + 1

        async def beside():
            good = asyncio.create_task(speaks())
            await asyncio.sleep(0.1)
            killed, deaf = await handshake(address), await handshake(address)
            assert taken(room) == 3
            for client in (killed, deaf):
                append(client, voice(100, seed=1))
            await asyncio.sleep(0.3)
            killed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            killed.close()  # with a reset, as when a machine goes down
            while taken(room) > 1 and not good.done():
                append(deaf, voice(2, seed=2))
                await asyncio.sleep(0.02)
            free.set()
            deaf.close()
            return await good

        heard, frames = run(beside())
        assert 10 < frames < 1000 and heard == as_bytes(alone(samples[: frames * HOP], row=0))
        until(lambda: taken(room) == 0)


async def handshake(address):
    """A plain socket that speaks WebSocket and never reads again."""
    host, port = address.removeprefix("http://").split(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    plain.connect((host, int(port)))
    asks = f"GET /v1/realtime HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    plain.sendall(f"{asks}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    plain.setblocking(False)
    return plain


def append(plain, samples):
    """Sound as one masked text frame, if there is room for it."""
    body = json.dumps({"type": "input_audio_buffer.append", "audio": base64_of(samples)}).encode()
    size = len(body).to_bytes(8, "big")
    with contextlib.suppress(OSError):
        plain.sendall(b"\x81\xff" + size + b"\0\0\0\0" + body)


def test_what_waits_is_bounded_and_only_that_sound_is_lost():
    with Room(echo(), heard_s=0.1) as room, served(Site("echo", SYSTEM, room)) as address:

        async def too_much():
            async with connected(address) as client:
                await client.say(voice(8), piece=8 * HOP)
                assert (await client.error())["code"] == "buffer_full"
                await client.say(voice(2))
                await client.send("input_audio_buffer.commit")
                await client.until("response.done")
                return client.sound()

        assert run(too_much()) == as_bytes(alone(voice(2), row=0))
