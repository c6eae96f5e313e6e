"""What the tests of rooms and of their site talk to, and how."""

import asyncio
import base64
import contextlib
import functools
import json
import time

import aiohttp
import numpy as np

from slm_jax.assemblies.codec_tokenizer import CodecTokenizer
from slm_jax.serving.codec_echo import CodecEcho
from slm_jax.serving.codec_system import CodecSystem
from slm_jax.serving.web.sound import RATE_HZ, base64_of, samples_of
from tests.codecs import CODECS, drawn_variables

FRAME_S = 0.02
BEGIN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
END = ["response.content_part.done", "response.output_item.done", "conversation.item.done", "response.done"]
CODEC = CODECS["as Mimi"]
VARIABLES = drawn_variables(CODEC)
SYSTEM = CodecSystem(CodecTokenizer(CODEC, VARIABLES))
HOP = round(FRAME_S * CODEC.rate_hz)


@functools.cache
def echo(batch=3, whose="a test's"):
    """A session of frames of 20 ms at 24 kHz; one and the same for everybody who says so, since each compiles."""
    session = CodecEcho(CODEC, VARIABLES, batch, frame_s=FRAME_S)
    assert session.hop == HOP
    return session


def voice(frames, seed=0):
    """So many frames of noise that is no louder than 1, as 16-bit samples can hold it."""
    noise = np.random.default_rng(seed).uniform(-0.9, 0.9, frames * HOP)
    return (np.round(noise * 32768) / 32768).astype(np.float32)


def alone(samples, row, batch=3):
    """What comes back for whole frames when nobody else is there, [T, hop]."""
    session, active = echo(batch, "alone"), np.arange(batch) == row
    session.reset(np.ones(batch, bool))
    frames = samples.reshape(-1, session.hop)
    return np.stack([session.push(np.where(active[:, None], frame, 0), active).samples[row] for frame in frames])


def until(true, seconds=30):
    """Waits for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


class Client:
    """A program that speaks the events."""

    def __init__(self, socket):
        self.socket, self.events = socket, []

    async def send(self, kind, **fields):
        await self.socket.send_json({"type": kind, **fields})

    async def say(self, samples, piece=1000, pause_s=0.0):
        """Sound in ragged pieces."""
        for start in range(0, len(samples), piece):
            await self.send("input_audio_buffer.append", audio=base64_of(samples[start : start + piece]))
            await asyncio.sleep(pause_s)

    async def next(self, seconds=120):
        """The next event."""
        message = await self.socket.receive(timeout=seconds)
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.events[-3:])
        event = json.loads(message.data)
        self.events.append(event)
        return event

    async def until(self, kind):
        """The next event of a kind, the others kept."""
        while (event := await self.next())["type"] != kind:
            pass
        return event

    async def error(self):
        """What the next error says."""
        return (await self.until("error"))["error"]

    def kinds(self):
        return [event["type"] for event in self.events]

    def sound(self):
        """All that was heard, as bytes."""
        heard = [event["delta"] for event in self.events if event["type"] == "response.output_audio.delta"]
        return b"".join(map(base64.b64decode, heard))

    def samples(self):
        """The same as samples."""
        return samples_of(base64.b64encode(self.sound()).decode())

    def words(self):
        """All that was written."""
        kinds = ("response.output_text.delta", "response.output_audio_transcript.delta")
        return "".join(event["delta"] for event in self.events if event["type"] in kinds)


@contextlib.asynccontextmanager
async def connected(address, **options):
    """A client whose session was made."""
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{address}/v1/realtime", **options) as socket:
        client = Client(socket)
        await client.until("session.created")
        yield client


def tone(seconds, seed=0):
    """A hum at 24 kHz."""
    pitch = np.random.default_rng(seed).uniform(100, 300)
    return (0.4 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


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


def taken(room):
    """How many sit."""
    return sum(seat is not None for seat in room._seats)
