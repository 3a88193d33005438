"""The client's end of a link over WebSocket.

Binary frames, uncompressed: payloads are spliced through, never looked at on the way. The
other end is the endpoint of a gateway (`shardrt.http.link`).
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from shardrt.config.tls import client_context
from shardrt.errors import ConfigInvalid, ConnectionLost, Unauthorized, Untrusted
from shardrt.links.frames import FRAME_BYTES_MAX, Codec
from shardrt.links.stream import StreamLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import Accept

TICK_S = 1.0
"""Silence is counted in turns of a timer rather than by the clock: while this process stands
still, it says nothing of the host."""
IDLE_TICKS = 20
"""A host that has been silent for so long is pinged, and so often again."""
AWAITED_TICKS = 1
"""The same while somebody waits for an answer."""
RESULT_TICKS = 5
"""The same while somebody waits for the end of an instance only: it may take long."""
PONG_TICKS = 3
"""A host that lets a ping wait for so long, while somebody waits, is gone; otherwise for
`IDLE_TICKS`."""
UPLOAD_BYTES_PER_TICK = 256 * 1024
"""What was written lately may still be on its way, this slowly, and the ping behind it."""
IN_FLIGHT_BYTES_MAX = 8 * 1024 * 1024
"""So much may be on its way that has left this process: it is in buffers of sockets."""

PATH = "/link"
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class WebSocketLink(StreamLink):
    """A client's link. Made by `dial_websocket`."""

    def __init__(
        self,
        codec: Codec,
        accept: Accept,
        url: str,
        token: str | None,
        silence_ticks: Callable[[], int] = lambda: IDLE_TICKS,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(codec, accept, is_busy)
        self._protocol = ClientProtocol(parse_uri(url), max_size=FRAME_BYTES_MAX)
        self._token = token
        self.accepted: asyncio.Future[None] = self._loop.create_future()
        """Done once messages may flow; its exception says why they never will."""
        self._fragments: list[bytes] = []
        self._silence_ticks = silence_ticks
        """Returns for how long the host may be silent; less than `IDLE_TICKS`: somebody waits for
        it to say something."""
        self._ticker: asyncio.TimerHandle | None = None
        self._heard = True
        """Whether anything came since the last tick."""
        self._silent_ticks = 0
        self._pinged_ticks: int | None = None
        """Of the silence, when the host was pinged; None: not in this silence."""
        self._upload_ticks = 0
        """What the ping is behind may take so long."""
        self._written_bytes = 0
        """Since the last tick."""
        self._upload_bytes = 0
        """Written and perhaps still on its way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        request = self._protocol.connect()
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._write_pending()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._shaken_hands()
            elif isinstance(event, Frame):
                self._frame_received(event)
        self._write_pending()
        if self._transport is not None and self._protocol.close_expected():
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if not self.accepted.done():
            self.accepted.set_exception(self._refusal(exc))
            self.accepted.exception()  # who was to hear it may have given up
        super().connection_lost(exc)

    def _shaken_hands(self) -> None:
        if self._protocol.handshake_exc is None and not self.accepted.cancelled():
            self._ticker = self._loop.call_later(TICK_S, self._on_tick)
            self.accepted.set_result(None)
            self._opened()

    def _refusal(self, exc: Exception | None) -> Exception:
        cause = self._protocol.handshake_exc or exc
        if isinstance(cause, InvalidStatus):
            status = cause.response.status_code
            if status == 401:
                return Unauthorized("the token is missing or wrong")
            if status == 403 and "json" in cause.response.headers.get("Content-Type", ""):
                return Unauthorized("the token may only read")  # others refuse so, without words
            if status == 421:
                return ConnectionLost("another host, or another hub, answers there")
            return ConnectionLost(f"the server answers {status}: is it a shardrt host?")
        if isinstance(cause, OSError):
            return ConnectionLost(
                f"the connection broke before it was opened: {cause.strerror or cause}"
            )
        return ConnectionLost(f"the server does not speak WebSocket: {cause or 'it hung up'}")

    def _frame_received(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return
        body = bytes(frame.data)
        if self._fragments or not frame.fin:
            self._fragments.append(body)
            if not frame.fin:
                return
            body, self._fragments = b"".join(self._fragments), []
        self._received(body)

    def _frames(self, bodies: list[bytes]) -> list[bytes]:
        if self._protocol.state is not State.OPEN:
            return []  # the host has said goodbye: lost, like all that is under way when links end
        for body in bodies:
            self._protocol.send_binary(body)
            self._written_bytes += len(body)
        return self._protocol.data_to_send()

    def _say_goodbye(self) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._write_pending()

    def _write_pending(self) -> None:
        # An empty piece means that the stream shall end; `close_expected` says it, too.
        pieces = [piece for piece in self._protocol.data_to_send() if piece]
        if pieces and self._transport is not None:
            self._write(pieces)

    def _on_tick(self) -> None:
        self._ticker = self._loop.call_later(TICK_S, self._on_tick)
        assert self._transport is not None, "it ends with the connection"
        upload_bytes = max(0, self._upload_bytes - UPLOAD_BYTES_PER_TICK) + self._written_bytes
        unsent_bytes = self._transport.get_write_buffer_size()
        self._upload_bytes = min(upload_bytes, unsent_bytes + IN_FLIGHT_BYTES_MAX)
        self._written_bytes = 0
        if self._heard:
            self._heard, self._silent_ticks, self._pinged_ticks = False, 0, None
            return
        self._silent_ticks += 1
        silence_ticks = self._silence_ticks()
        if self._pinged_ticks is None:
            if self._silent_ticks >= silence_ticks:
                self._pinged_ticks = self._silent_ticks
                self._upload_ticks = self._upload_bytes // UPLOAD_BYTES_PER_TICK
                if self._protocol.state is State.OPEN:
                    self._protocol.send_ping(b"")
                    self._write_pending()
            return
        patience = PONG_TICKS if silence_ticks < IDLE_TICKS else IDLE_TICKS
        if self._silent_ticks - self._pinged_ticks >= patience + self._upload_ticks:
            self._ticker.cancel()
            self._abort("the host has fallen silent")


def link_url(url: str) -> str:
    """Return the WebSocket URL of the link at a host given as http(s):// or ws(s)://.

    Raises:
        ConfigInvalid: it is not such a URL.
    """
    return base_url(url) + PATH


def base_url(url: str) -> str:
    """Return the URL of a host, below which its links are, as ws(s)://.

    Raises:
        ConfigInvalid: it is not the URL of a host.
    """
    parts = urlsplit(url)
    try:
        scheme, host, port = _SCHEMES.get(parts.scheme), parts.hostname, parts.port
    except ValueError as error:
        raise ConfigInvalid(f"not a URL: {url!r}: {error}") from None
    if scheme is None or not host:
        raise ConfigInvalid(f"not the URL of a host: {url!r}; write it as http://127.0.0.1:8520")
    where = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    return f"{scheme}://{where}{f':{port}' if port else ''}{path.removesuffix(PATH)}"


async def dial_websocket(  # noqa: PLR0913 - all that a link needs
    url: str,
    token: str | None,
    incoming: Any,
    accept: Accept,
    *,
    target: str | None = None,
    ca_file: str = "",
    silence_ticks: Callable[[], int] = lambda: IDLE_TICKS,
    is_busy: Callable[[], bool] = lambda: False,
) -> WebSocketLink:
    """Open a link to a host: a client's, or the one that `target` is the WebSocket URL of.

    A host that falls silent for `silence_ticks` (seconds) is found out four seconds later, if that
    is less than `IDLE_TICKS`: within five seconds with `AWAITED_TICKS`. While the sender `is_busy`
    its messages gather.

    Raises:
        ConfigInvalid: `url` is none, or `ca_file` holds no authorities.
        Unauthorized: the host does not take the token.
        Untrusted: its certificate is not of these authorities (the system's, if there is no
            file), or for another name.
        ConnectionLost: there is no host, or it does not answer as one.
    """
    target = link_url(url) if target is None else target
    uri = parse_uri(target)
    loop = asyncio.get_running_loop()
    codec = Codec(incoming)
    try:
        _, link = await loop.create_connection(
            lambda: WebSocketLink(codec, accept, target, token, silence_ticks, is_busy),
            uri.host,
            uri.port,
            ssl=client_context(ca_file) if uri.secure else None,
        )
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(f"{url} is not trusted: {error.verify_message}") from None
    except ssl.SSLError:
        raise ConnectionLost(f"cannot reach {url}: no TLS there; is it http://?") from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        why = "connection refused" if refused else error.strerror or error
        raise ConnectionLost(f"cannot reach {url}: {why}") from None
    try:
        await link.accepted
    except asyncio.CancelledError:
        link.close()
        raise
    return link
