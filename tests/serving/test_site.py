"""The site over real sockets: events in, events out, and bad clients who disturb nobody."""

import asyncio
import contextlib
import json
import socket

import aiohttp
import numpy as np
import pytest

from slm_jax.core.errors import UserError
from slm_jax.serving.replies import Replies
from slm_jax.serving.rooms import Room
from slm_jax.serving.web import connection
from slm_jax.serving.web.limits import Limits
from slm_jax.serving.web.site import Site, served
from slm_jax.serving.web.sound import RATE_HZ, base64_of
from tests.serving.drawn import drawn_unit_speech_lm, noise
from tests.serving.drawn_slm import drawn_slm
from tests.serving.talking import HOP, SYSTEM, alone, connected, echo, tone, until, voice

BEGIN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
END = ["response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done"]


@pytest.fixture(scope="module")
def room():
    with Room(echo(whose="the room's")) as room:
        yield room


@pytest.fixture(scope="module")
def open_site(room):
    with served(Site("echo", SYSTEM, room)) as address:
        yield address


def run(what):
    return asyncio.run(asyncio.wait_for(what, 200))


def as_bytes(frames):
    """What the socket makes of samples."""
    return np.round(np.clip(frames.reshape(-1), -1, 1) * 32767).astype("<i2").tobytes()


async def spoken(address, samples, **how):
    """Says it, commits, and waits for the end."""
    async with connected(address) as client:
        await client.say(samples, **how)
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.until("response.done")
        return client


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


def taken(room):
    """How many sit."""
    return sum(seat is not None for seat in room._seats)


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


def test_limits_are_one_clear_error_each(room):
    limits = Limits(message_bytes=3000, messages_per_s=20, minutes=0.03)
    with served(Site("echo", SYSTEM, room, limits=limits)) as address:

        async def above():
            async with connected(address) as client:
                await client.socket.send_str("x" * 3001)
                assert (await client.error())["message"].startswith("an event has at most 3000 bytes, this one 3001")
                for _ in range(60):
                    await client.send("input_audio_buffer.clear")
                assert (await client.error())["code"] == "rate_limit_exceeded"
                assert (await client.error())["code"] == "session_expired"
                assert sum(kind == "error" for kind in client.kinds()) == 3
                last = await client.socket.receive()
                assert last.type is aiohttp.WSMsgType.CLOSE and last.data == aiohttp.WSCloseCode.POLICY_VIOLATION
            async with connected(address) as client:  # what is far above is not even read
                await client.socket.send_str("x" * (limits.hard_bytes + 1))
                last = await client.socket.receive()
                assert last.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

        run(above())


def test_who_comes_when_all_seats_are_taken_is_told(open_site, room):
    async def crowd():
        async with connected(open_site), connected(open_site), connected(open_site), aiohttp.ClientSession() as http:
            late = await http.ws_connect(f"{open_site}/v1/realtime")
            error = (await late.receive_json())["error"]
            assert error["code"] == "no_free_seat" and "all 3 seats are taken" in error["message"]
            assert (await late.receive()).data == 1013

    run(crowd())
    until(lambda: taken(room) == 0)


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


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost:1", 403),
        ("https://127.0.0.1:{port}", 403),
        ("http://127.0.0.1:{port}", 101),
        ("http://localhost:{port}", 101),
        ("https://talks.example", 101),
        (None, 101),
    ],
)
def test_pages_of_other_sites_may_not_talk(room, origin, status):
    with served(Site("echo", SYSTEM, room, origins=("https://talks.example/",))) as address:
        headers = {} if origin is None else {"Origin": origin.format(port=address.rsplit(":", 1)[1])}

        async def knock():
            try:
                async with connected(address, headers=headers):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

        assert run(knock()) == status


def test_the_page_loads_nothing_from_elsewhere_and_says_what_is_served(open_site):
    async def fetch():
        async with aiohttp.ClientSession() as http:
            page = await http.get(open_site)
            about, figures = [await (await http.get(f"{open_site}/{name}")).json() for name in ("about", "figures")]
            return await page.text(), page.headers["Content-Security-Policy"], about, figures

    page, policy, about, figures = run(fetch())
    assert "src=" not in page and "https://" not in page and "@import" not in page
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert about["model"] == "echo" and about["slm_jax"]["reads"] == ["speech"]
    assert figures["name"] == "echo" and "model_p99" in figures


def test_an_address_that_is_taken_is_one_line(open_site, room):
    port = int(open_site.rsplit(":", 1)[1])
    with (
        pytest.raises(UserError, match=rf"127.0.0.1:{port} cannot be served"),
        served(Site("echo", SYSTEM, room), port=port),
    ):
        pass


def test_the_end_of_the_server_is_said(room):
    with contextlib.ExitStack() as serving:
        address = serving.enter_context(served(Site("echo", SYSTEM, room)))

        async def until_the_end():
            async with connected(address) as client:
                leaving = asyncio.get_running_loop().run_in_executor(None, serving.close)
                error = await client.error()
                await client.socket.receive()
                await leaving
                return error

        assert run(until_the_end())["code"] == "server_closed"


@pytest.fixture(scope="module")
def answering():
    """A system that hears and reads and writes words; its site."""
    system = drawn_slm()
    with (
        Replies(system) as replies,
        served(Site("words", system, replies, seats=2, limits=Limits(clip_s=2))) as address,
    ):
        yield address, system


async def asked(address, *clips, words=None):
    """One client who says each clip, writes the words, and asks once."""
    async with connected(address) as client:
        for clip in clips:
            await client.say(clip, piece=3000)
            await client.send("input_audio_buffer.commit")
        if words:
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}
            await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        await client.until("response.done")
        return client


def test_push_to_talk_is_answered_in_words(answering):
    address, system = answering
    client = run(asked(address, tone(0.5), words="What?"))
    kinds = [kind for kind in client.kinds() if not kind.startswith("conversation")]
    wanted = ["response.output_text.delta", "response.output_text.done"]
    assert kinds[1:] == ["input_audio_buffer.committed", *BEGIN[:2], BEGIN[3], *wanted, *END[:2], END[3]]
    assert client.events[0]["session"]["output_modalities"] == ["text"]
    done = client.events[-1]
    assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": client.words()}]
    assert set(done["latency_ms"]) == {"queue", "model", "out"}
    again = run(asked(address, tone(0.5), words="What?"))
    assert again.words() == client.words() != run(asked(address, tone(0.5), words="Who is it?")).words()


def test_what_goes_wrong_in_a_turn(answering):
    address, _ = answering

    async def wrong():
        async with connected(address) as client:
            await client.send("response.create")
            assert (await client.error())["code"] == "nothing_to_answer"
            await client.send("input_audio_buffer.commit")
            assert (await client.error())["code"] == "input_audio_buffer_commit_empty"
            await client.say(tone(2.1), piece=RATE_HZ)
            assert (await client.error())["code"] == "buffer_full"
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.send("response.cancel")
            assert (await client.error())["code"] == "response_cancel_not_active"
            picture = {"type": "message", "role": "user", "content": [{"type": "input_image"}]}
            await client.send("conversation.item.create", item=picture)
            assert (await client.error())["code"] == "unsupported_item"
            await client.send("conversation.item.create", item={**picture, "role": "system"})
            assert (await client.error())["param"] == "item.role"
            await client.say(tone(0.5))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            await client.send("response.create")
            assert (await client.error())["code"] == "conversation_already_has_active_response"
            await client.send("response.cancel")
            done = await client.until("response.done")
            while done["response"]["status"] == "completed":  # the reply was quicker
                return None
            assert done["response"]["status"] == "cancelled"
            await client.say(tone(0.5))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            assert (await client.until("response.done"))["response"]["status"] == "completed"

    run(wrong())


def test_a_system_without_words_goes_on_in_sound_and_a_fault_is_said():
    system = drawn_unit_speech_lm()
    with Replies(system, seed=3) as replies, served(Site("units", system, replies)) as address:
        clip = np.repeat(0.3 * noise(0.6), 3)[::2].copy()  # 24 kHz
        client = run(asked(address, clip))
        again = run(asked(address, clip))
        two = run(asked(address, clip, clip))
    assert len(client.samples()) > 1000 and client.sound() == again.sound()
    assert client.events[-1]["response"]["output"][0]["content"] == [{"type": "output_audio", "transcript": ""}]
    failed = two.events[-1]["response"]
    assert failed["status"] == "failed" and "2 clips" in failed["status_details"]["error"]["message"]
