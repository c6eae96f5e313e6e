"""What a site refuses, with one clear error each: too much, too many, too long, pages of other sites."""

import asyncio
import contextlib

import aiohttp
import pytest

from slm_jax.core.errors import UserError
from slm_jax.serving.rooms import Room
from slm_jax.serving.web.limits import Limits
from slm_jax.serving.web.site import Site, served
from tests.serving.talking import SYSTEM, connected, echo, run, taken, until


@pytest.fixture(scope="module")
def room():
    with Room(echo(whose="the room's")) as room:
        yield room


@pytest.fixture(scope="module")
def open_site(room):
    with served(Site("echo", SYSTEM, room)) as address:
        yield address


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
