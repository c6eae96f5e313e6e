"""A headless Chromium with a recording as its microphone, driven over its debugging socket."""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0", "--window-size=900,900"),
)
"""Its microphone is a file; it asks nobody for permission and downloads nothing."""


class Browser:
    """One page of it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._count = socket, 0

    async def call(self, method, **params):
        """The result of a command of the DevTools protocol."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json(timeout=60)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    async def value(self, expression):
        """What an expression of JavaScript is; promises are awaited."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression, seconds=60):
        """Waits until it is true; says what the page complains of when it never is."""
        for _ in range(round(10 * seconds)):
            if await self.value(expression):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{expression} never came; trouble: {await self.value('window.talk.trouble')!r}")

    async def press(self, selector, release=True):
        """The mouse on an element."""
        box = await self.value(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased")[: 1 + release]:
            await self.mouse(kind, box)
        return box

    async def mouse(self, kind, place):
        """One event of the mouse."""
        more = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        await self.call("Input.dispatchMouseEvent", type=kind, **more)

    async def picture(self, path):
        """A screenshot as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def browsing(address, microphone, profile, flags=()):
    """The page at `address` in a new browser that hears the WAV file `microphone`; `profile` is a folder for it."""
    hears = f"--use-file-for-fake-audio-capture={microphone}"
    command = [PROGRAM, *FLAGS, *flags, hears, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await debugging_port(Path(profile) / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as pages:
                place = next(page for page in await pages.json() if page["type"] == "page")["webSocketDebuggerUrl"]
            async with session.ws_connect(place, max_msg_size=0) as socket:
                browser = Browser(socket)
                await browser.call("Page.enable")
                await browser.call("Page.navigate", url=address)
                yield browser
    finally:
        process.terminate()
        process.wait(timeout=30)


async def debugging_port(file):
    """Chromium says where it listens once it does."""
    for _ in range(600):
        if file.exists() and (text := file.read_text()).count("\n"):
            return int(text.split("\n")[0])
        await asyncio.sleep(0.1)
    raise AssertionError("Chromium did not start")
