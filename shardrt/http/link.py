"""The WebSocket endpoints at which the links of clients and of other hosts end.

Frames are binary, uncompressed JSON arrays; text frames are taken, too. Answers of one turn
leave as one frame. A client that does not read is not read from either, and is let go when
more is waiting for it than memory is worth.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from shardrt.config.tokens import Access
from shardrt.errors import ProtocolViolation
from shardrt.http.token import MISSING, READ_ONLY, ReadOnly, access_of
from shardrt.links.frames import Codec, client_frame_bytes_max
from shardrt.links.messages import PROTOCOL, Answer, FromClient, ToHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from shardrt.config import Tokens
    from shardrt.links.base import Accept

logger = logging.getLogger(__name__)

UNREAD_BYTES_HIGH = 8 * 1024 * 1024
"""More than this waiting for a client: nothing more is read from it meanwhile."""
UNREAD_BYTES_MAX = 256 * 1024 * 1024
"""More than this waiting for a client: it is let go."""

_GOING_AWAY = 1001
_PROTOCOL_ERROR = 1002
_POLICY_VIOLATION = 1008
_TOO_SLOW = 1013


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDoor:
    """Where other hosts of the hub come in."""

    accept: Accept
    """Who listens to them."""
    owner: Callable[[], str]
    """Returns the owner that this host is now: who expects another is at the wrong address."""


class LinkEndpoint:
    """An ASGI application for WebSocket connections.

    Args:
        accept: who listens to clients.
        tokens: of which they must present one, if there are any.
        payload_bytes_max: what was promised in the welcome.
    """

    def __init__(
        self,
        accept: Accept,
        tokens: Tokens,
        payload_bytes_max: int,
        incoming: Any = FromClient,
    ) -> None:
        self._accept = accept
        self._tokens = tokens
        self._codec = Codec(incoming)
        self._frame_bytes_max = client_frame_bytes_max(payload_bytes_max)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until either side ends the link."""
        await receive()  # websocket.connect
        access = access_of(scope, self._tokens)
        if access is None:
            await _refuse(send, 401, MISSING)
            return
        if not self._is_enough(access):
            await _refuse(send, 403, READ_ONLY)
            return
        if not self._is_expected(scope):
            await _refuse(send, 421, "this is another host")
            return
        await send({"type": "websocket.accept"})
        link = _AsgiLink(self._codec, send)
        handler = self._accept(link)
        if access is Access.READ:
            handler = ReadOnly(handler, link)
        stays = self._stays(scope, access)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(link.write())
                reader = tasks.create_task(self._read(receive, link, handler.on_messages, stays))
                reader.add_done_callback(lambda _: link.close())
                writer.add_done_callback(lambda _: reader.cancel())
        finally:
            handler.on_closed()

    def _is_expected(self, scope: Scope) -> bool:  # noqa: ARG002 - clients take any host
        return True

    def _is_enough(self, access: Access) -> bool:  # noqa: ARG002 - some clients only look
        return True

    def _stays(self, scope: Scope, access: Access) -> Callable[[], bool]:
        """Return how to tell whether the token that let somebody in still does."""
        known = self._tokens.version

        def stays() -> bool:
            nonlocal known
            self._tokens.look()
            if known == self._tokens.version:
                return True
            known = self._tokens.version
            return access_of(scope, self._tokens) is access

        return stays

    async def _read(
        self, receive: Receive, link: _AsgiLink, take: Any, stays: Callable[[], bool]
    ) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                link.abandon()
                return
            if not stays():
                link.close(_POLICY_VIOLATION)
                return
            try:
                take(self._decode(message))
            except ProtocolViolation as error:
                logger.warning("link let go: %s", error)
                link.close(_PROTOCOL_ERROR)
                return
            await link.readable()

    def _decode(self, message: Message) -> list[Any]:
        data = message.get("bytes")
        body: bytes = (message.get("text") or "").encode() if data is None else bytes(data)
        if len(body) > self._frame_bytes_max:
            raise ProtocolViolation(f"frame of {len(body)} bytes exceeds {self._frame_bytes_max}")
        # Payloads are passed on unseen, so this is where their text is checked.
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise ProtocolViolation(f"not UTF-8: {error}") from None
        return self._codec.decode(body)


class PeerEndpoint(LinkEndpoint):
    """The same for other hosts, each of which says whom it expects here."""

    def __init__(self, door: PeerDoor, tokens: Tokens, payload_bytes_max: int) -> None:
        super().__init__(door.accept, tokens, payload_bytes_max, ToHost)
        self._owner = door.owner

    def _is_enough(self, access: Access) -> bool:
        return access is Access.FULL

    def _is_expected(self, scope: Scope) -> bool:
        said = parse_qs(scope["query_string"].decode("latin-1"))
        return said.get("owner") == [self._owner()] and said.get("protocol") == [str(PROTOCOL)]


class _AsgiLink:
    """The gateway's end of a link."""

    def __init__(self, codec: Codec, send: Send) -> None:
        self._codec = codec
        self._send = send
        self._held: list[Any] = []
        self._held_bytes = 0
        """Size of the payloads among what is held."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._open = True
        self._close_code = _GOING_AWAY
        self._abandoned = False

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def is_congested(self) -> bool:
        return not self._room.is_set()

    def send(self, message: Any) -> None:
        if not self._open:
            return
        self._held.append(message)
        if type(message) is Answer:
            self._held_bytes += memoryview(message.result).nbytes
            if self._held_bytes > UNREAD_BYTES_HIGH:
                self._on_unread()
        self._news.set()

    def close(self, code: int = _GOING_AWAY) -> None:
        if self._open:
            self._open = False
            self._close_code = code
            self._news.set()

    def abandon(self) -> None:
        """End without another word: the client has gone."""
        self._abandoned = True
        self._open = False
        self._held = []
        self._news.set()

    async def readable(self) -> None:
        """Wait until more may be read from the client."""
        await self._room.wait()

    async def write(self) -> None:
        """Write what is sent, until the end."""
        while True:
            await self._news.wait()
            self._news.clear()
            messages, self._held = self._held, []
            self._held_bytes = 0
            self._room.set()
            try:
                for body in self._codec.encode(messages) if messages else ():
                    await self._send({"type": "websocket.send", "bytes": body})
                if self._abandoned:
                    return
                if not self._open and not self._held:
                    await self._send({"type": "websocket.close", "code": self._close_code})
                    return
            except OSError:  # the client has gone
                return

    def _on_unread(self) -> None:
        self._room.clear()
        if self._held_bytes > UNREAD_BYTES_MAX:
            logger.warning("client let go: %d bytes wait for it", self._held_bytes)
            self._held = []
            self.close(_TOO_SLOW)


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    body = b'{"message":"%b"}' % message.encode()
    await send({"type": "websocket.http.response.body", "body": body})
