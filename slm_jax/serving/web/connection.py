"""One client on its socket: what it may send is read, what there is to say is written, and its end is said."""

import asyncio
import contextlib
import logging
import socket
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from slm_jax.serving.web.events import Event, Refused, error_event
from slm_jax.serving.web.limits import Limits, MessageRate
from slm_jax.serving.web.talk import Talk

LOG = logging.getLogger(__name__)
UNREAD_BYTES = 32_768
"""What the system keeps for a client who does not read: little, so that it is noticed."""
MOST_WAITING = 64
"""Events of the talk itself that may wait; until some are fetched, nothing more is read."""
FAREWELL_S = 1.0


class Connection:
    """Runs `talk` on `socket` until one of them ends; `woken` is set when the talk has something to send."""

    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, talk: Talk, limits: Limits, woken: asyncio.Event
    ) -> None:
        self._request, self._socket, self._talk, self._limits, self._woken = request, socket, talk, limits, woken
        self._rate = MessageRate(limits.messages_per_s)
        self._over: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Returns when it is over; the talk has left by then."""
        tasks: list[asyncio.Future[Any]] = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]
        try:
            self._woken.set()
            most_s = 60 * self._limits.minutes
            await asyncio.wait([*tasks, self._over], timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            late = Refused("session_expired", f"a session has at most {self._limits.minutes:g} minutes")
            await self._part(self._why(tasks) or late)
        finally:
            self._talk.side.leave()

    def stop(self, why: Refused) -> None:
        """Ends it from outside."""
        if not self._over.done():
            self._over.set_result(why)

    def _why(self, tasks: list[asyncio.Future[Any]]) -> Refused | None:
        """What ended it: None if nothing did."""
        if self._over.done():
            return self._over.result()
        if self._socket.closed:
            return Refused("closed", "the client left")
        for task in tasks:
            if not task.cancelled() and (error := task.exception()):
                if isinstance(error, Refused):
                    return error
                LOG.error("a session failed", exc_info=error)
                return Refused("server_error", "the session failed; the server's log has more")
        return None

    async def _part(self, why: Refused) -> None:
        """Says why, if anybody listens, and closes."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(FAREWELL_S):
                await self._send(error_event(why))
                await self._socket.close(code=WSCloseCode.POLICY_VIOLATION, message=why.code.encode())
        if self._request.transport is not None:
            self._request.transport.abort()  # what was not read by now is not waited for

    async def _read(self) -> None:
        async for message in self._socket:
            if self._rate.allows():
                self._take(message)
            elif self._rate.first_refused():
                most = f"more than {self._limits.messages_per_s:g} events a second: what is above is not read"
                self._talk.tell(error_event(Refused("rate_limit_exceeded", most)))
            self._woken.set()
            while self._talk.waiting > MOST_WAITING:
                await asyncio.sleep(0.01)

    def _take(self, message: WSMessage) -> None:
        if message.type is WSMsgType.ERROR:  # the socket is closed by then
            raise Refused("protocol_error", str(message.data))
        size = len(message.data)
        if message.type is not WSMsgType.TEXT:
            self._talk.tell(error_event(Refused("invalid_event", "events are text, not binary")))
        elif size > self._limits.message_bytes:
            most = f"an event has at most {self._limits.message_bytes} bytes, this one {size}: send less at once"
            self._talk.tell(error_event(Refused("message_too_large", most)))
        else:
            self._talk.take(message.data)

    async def _write(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            for event in self._talk.events():
                await self._send(event)
            if self._talk.side.lost:
                raise Refused("seat_lost", self._talk.side.lost)

    async def _send(self, event: Event) -> None:
        try:
            async with asyncio.timeout(self._limits.patience_s):
                await self._socket.send_json({"event_id": self._talk.ids.next("event"), **event})
        except TimeoutError:
            raise Refused("slow_reader", f"an event was not read for {self._limits.patience_s:g} s") from None


def keep_little(request: web.Request) -> None:
    """Few bytes wait outside of the program."""
    transport: Any = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        if (plain := transport.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
