"""Bounds of connections: how many, and how much and how long they may say before a request.

A few must not use up what is there for all. uvicorn with httptools has no bound for either, so
its protocols are made to ask a `Door`. Below the bounds, a connection that says nothing costs
memory, and no turn of the loop. When the time of many is up at once, they are let go a few at a
time, so that nobody else waits for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from shardrt.config import LimitSettings

logger = logging.getLogger(__name__)

TOLD_S = 10.0
"""Connections that are turned away are worth a line in the log so often at most."""


LET_GO_MAX = 32
"""So many connections are let go in one turn of the loop: about a millisecond."""


class Door:
    """Counts the connections of one server, in all and by address, and lets slow ones go."""

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self.connections = 0
        self._by_address: Counter[str] = Counter()
        self._told_s = float("-inf")
        self._expected: OrderedDict[_Http, float] = OrderedDict()
        """Connections whose header is not complete → when it must be; all have the same time, so
        the first to come is the first to go."""
        self._timer: asyncio.TimerHandle | None = None
        """For the first of them, or one that was; None: none is expected."""

    def enter(self, address: str) -> bool:
        """Count a connection; False: there is no room for it, and it is not counted."""
        per_address = self._by_address[address] if address else 0
        if (
            self.connections >= self.limits.connections_max
            or per_address >= self.limits.connections_per_address_max
        ):
            self._tell(address, per_address)
            return False
        self.connections += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count one that was let in as gone."""
        self.connections -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def expect(self, connection: _Http) -> None:
        """Let the connection go unless its header is complete in time."""
        loop, within_s = connection.loop, self.limits.header_s_max
        self._expected[connection] = loop.time() + within_s
        if self._timer is None:
            self._timer = loop.call_later(within_s, self._let_go, loop)

    def complete(self, connection: _Http) -> None:
        """Expect nothing more of the connection, if anything."""
        self._expected.pop(connection, None)

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        for connection, due_s in list(islice(self._expected.items(), LET_GO_MAX)):
            if due_s > now_s:
                break
            del self._expected[connection]
            connection.on_too_slow()
        first_s = next(iter(self._expected.values()), None)
        if first_s is not None:
            self._timer = loop.call_later(max(0.0, first_s - now_s), self._let_go, loop)

    def _tell(self, address: str, per_address: int) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s >= TOLD_S:
            self._told_s = now_s
            text = "connection turned away: there are %d, of them %d from %s"
            logger.warning(text, self.connections, per_address, address or "here")


def protocols(door: Door) -> dict[str, Any]:
    """Return uvicorn's options for a server behind this door."""
    http = type("Http", (_Http,), {"door": door})
    websocket = type("WebSocket", (_WebSocket,), {"door": door})
    return {"http": http, "ws": websocket}


class _Http(HttpToolsProtocol):
    """A connection, until it ends or becomes a WebSocket."""

    door: Door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = _address(transport)
        self._header_bytes = 0
        """Of the request whose header is not complete yet."""
        self._waiting = False
        self._entered = self.door.enter(self._address)
        if self._entered:
            self._expect_header()
        else:
            self._refuse(503, b"Service Unavailable", "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._entered:
            self._entered = False
            self.door.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._waiting and self._is_idle():
            self._expect_header()
        self._header_bytes += len(data) if self._waiting else 0
        super().data_received(data)
        too_long = self._header_bytes > self.door.limits.header_bytes_max
        if self._waiting and too_long and not self.transport.is_closing():
            self._refuse_header()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._fields_bytes += len(name) + len(value) + len(b": \r\n")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields_bytes = 0

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._header_bytes = 0
        if self._fields_bytes + len(self.url) > self.door.limits.header_bytes_max:
            self._refuse_header()
            raise ValueError("the header is too long")  # and nothing of the request is read
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._refuse(400, b"Bad Request", msg)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_header(self) -> None:
        self._waiting = True
        self.door.expect(self)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self.door.complete(self)

    def on_too_slow(self) -> None:
        """Say that it took too long, and close."""
        self._waiting = False
        if not self.transport.is_closing():
            self._refuse(408, b"Request Timeout", "the request took too long to arrive")

    def _refuse_header(self) -> None:
        text = f"the header exceeds {self.door.limits.header_bytes_max} bytes"
        self._refuse(431, b"Request Header Fields Too Large", text)

    def _refuse(self, status: int, phrase: bytes, message: str) -> None:
        body = msgspec.json.encode({"message": message})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"retry-after: 1\r\nconnection: close\r\n\r\n%b" % (status, phrase, len(body), body)
        )
        self.transport.close()


class _WebSocket(WebSocketsSansIOProtocol):
    """What a connection that was let in has become."""

    door: Door

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = _address(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self._address)
        super().connection_lost(exc)

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # uvicorn takes a refusal for a handshake that was forgotten, and logs an error.
            self.handshake_complete = True


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
