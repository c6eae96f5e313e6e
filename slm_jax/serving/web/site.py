"""The site: the page, the socket, the figures, and a server of them in a thread of its own."""

import asyncio
import contextlib
import importlib.resources
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web

from slm_jax.core.contracts import System
from slm_jax.core.errors import UserError
from slm_jax.serving.replies import Replies
from slm_jax.serving.rooms import Room
from slm_jax.serving.web.connection import Connection, keep_little
from slm_jax.serving.web.events import Ids, Refused, error_event
from slm_jax.serving.web.limits import Limits
from slm_jax.serving.web.open_talk import OpenSide
from slm_jax.serving.web.settings import SessionSettings
from slm_jax.serving.web.talk import Side, Talk
from slm_jax.serving.web.turn_talk import TurnSide

SOCKET = "/v1/realtime"
HEARTBEAT_S = 15.0
LOCAL = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from elsewhere and is shown in no other page."""


class Site:
    """What is served: `engine` is a room (open microphone) or a queue of replies (push to talk) of `system`.

    `seats`: clients at once; a room has as many as its session has rows. `origins`: other sites whose pages may speak
    to this one, such as `https://example.org`; programs that are no browser send no origin and may always.
    """

    def __init__(
        self,
        name: str,
        system: System,
        engine: Room | Replies,
        *,
        seats: int = 4,
        limits: Limits = Limits(),
        origins: tuple[str, ...] = (),
    ) -> None:
        self.name, self.system, self.engine, self.limits = name, system, engine, limits
        self.seats = engine.session.batch if isinstance(engine, Room) else seats
        self._origins = {origin.rstrip("/") for origin in origins}
        self._talking: set[Connection] = set()
        self._sessions = 0

    def app(self) -> web.Application:
        """Routes: the page at `/`, the session that one would get at `/about`, the socket at `/v1/realtime`, delays in
        seconds at `/figures`."""
        app = web.Application()
        routes = {"/": self._page, "/about": self._told, "/figures": self._figures, SOCKET: self._talk}
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        app.on_shutdown.append(self._stop)
        return app

    async def _page(self, request: web.Request) -> web.Response:
        page = importlib.resources.files("slm_jax.serving.web").joinpath("page.html").read_text("utf-8")
        return web.Response(text=page, content_type="text/html", headers={"Content-Security-Policy": POLICY})

    async def _told(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings("").as_json())

    async def _figures(self, request: web.Request) -> web.Response:
        return web.json_response({"name": self.name, "talking": len(self._talking), **self.engine.figures()})

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        self._check_origin(request)
        limits = self.limits
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=limits.hard_bytes, compress=False)
        await socket.prepare(request)
        keep_little(request)
        woken = asyncio.Event()
        try:
            connection = Connection(request, socket, self._opened(woken), limits, woken)
        except UserError as error:
            code = "model_failed" if getattr(self.engine, "fault", None) else "no_free_seat"
            await socket.send_json({"event_id": "event_1", **error_event(Refused(code, str(error)))})
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=code.encode())
            return socket
        self._talking.add(connection)
        try:
            await connection.run()
        finally:
            self._talking.discard(connection)
        return socket

    def _opened(self, woken: asyncio.Event) -> Talk:
        """A talk of one more client; raises `UserError` when there is no room for it."""
        call, ids = asyncio.get_running_loop().call_soon_threadsafe, Ids()
        if len(self._talking) >= self.seats:
            raise UserError(f"all {self.seats} seats are taken: come back later")
        side: Side
        if isinstance(self.engine, Room):
            side = OpenSide(self.engine, lambda: _quietly(call, woken.set))
        else:
            side = TurnSide(self.engine, self.limits.clip_s, lambda *what: _quietly(call, *what), woken.set)
        self._sessions += 1
        return Talk(self._settings(f"sess_{self._sessions}"), side, ids)

    def _settings(self, session: str) -> SessionSettings:
        return SessionSettings(session, self.name, self.system.writes, self._about())

    def _about(self) -> dict:
        """What the page asks for and OpenAI's types do not have."""
        room = self.engine if isinstance(self.engine, Room) else None
        return {
            "microphone": "open" if room else "push to talk",
            "frame_ms": 1e3 * room.period_s if room else None,
            "rate_hz": room.session.rate_hz if room else self.system.rate_hz,
            "reads": ["speech"] if room else sorted(self.system.reads),
            "writes": sorted(self.system.writes),
            "minutes": self.limits.minutes,
            "seats": self.seats,
        }

    def _check_origin(self, request: web.Request) -> None:
        """A page of another site may not talk to a model of this machine."""
        origin = request.headers.get("Origin")
        if origin is None or origin.rstrip("/") in self._origins:
            return
        port = request.transport.get_extra_info("sockname")[1] if request.transport else None
        asked = urlsplit(origin)
        own = {f"http://{name}:{port}" for name in LOCAL} | {f"http://{name}" for name in LOCAL if port == 80}
        if f"{asked.scheme}://{asked.netloc}" not in own:
            raise web.HTTPForbidden(text=f"pages of {origin} may not talk to this server: see --origins")

    async def _stop(self, app: web.Application) -> None:
        for connection in list(self._talking):
            connection.stop(Refused("server_closed", "the server ends"))


def _quietly(call, *what) -> None:  # type: ignore[no-untyped-def]
    """A client may be gone with its loop when something for it arrives."""
    with contextlib.suppress(RuntimeError):
        call(*what)


@contextlib.contextmanager
def served(site: Site, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address of the site, while it is served by a thread; port 0 takes a free one.

    The engine of the site must run. Raises `UserError` where the address cannot be had.
    """
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = Thread(target=lambda: loop.run_until_complete(_serve(site, host, port, started, stop)), name="site")
    thread.start()
    try:
        yield started.result()
    finally:
        if not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _serve(site: Site, host: str, port: int, started: "Future[str]", stop: asyncio.Event) -> None:
    runner = web.AppRunner(site.app(), access_log=None, shutdown_timeout=2.0)
    try:
        await runner.setup()
        place = web.TCPSite(runner, host, port)
        await place.start()
        shown = f"[{host}]" if ":" in host else host
        started.set_result(f"http://{shown}:{runner.addresses[0][1]}")
        await stop.wait()
    except OSError as error:
        started.set_exception(UserError(f"{host}:{port} cannot be served: {error.strerror or error}"))
    finally:
        await runner.cleanup()
