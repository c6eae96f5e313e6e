"""What the socket itself costs: an event with a frame of sound, to this machine and back."""

import asyncio
import json
from time import perf_counter

import numpy as np
from aiohttp import ClientSession, ClientWebSocketResponse, web
from jaxtyping import Float

from slm_jax.core.errors import require
from slm_jax.serving.web.sound import base64_of, samples_of


def round_trips(samples: Float[np.ndarray, "N"], count: int = 50) -> list[float]:
    """Seconds of so many round trips of these samples: written, sent, returned, read. Needs a free port."""
    require(count >= 1, "count", count, "at least one round trip")
    return asyncio.run(_round_trips(samples, count))


async def _round_trips(samples: Float[np.ndarray, "N"], count: int) -> list[float]:
    app = web.Application()
    app.router.add_get("/", _returned)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession() as client, client.ws_connect(f"http://127.0.0.1:{port}/") as socket:
            return [await _round_trip(socket, samples) for _ in range(count)]
    finally:
        await runner.cleanup()


async def _round_trip(socket: ClientWebSocketResponse, samples: Float[np.ndarray, "N"]) -> float:
    start = perf_counter()
    await socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": base64_of(samples)}))
    samples_of(json.loads(await socket.receive_str())["audio"])
    return perf_counter() - start


async def _returned(request: web.Request) -> web.WebSocketResponse:
    """Sends every message back."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket
