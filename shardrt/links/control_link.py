"""The control link: supervisor and child over one end each of a socket pair.

A frame is a 4-byte big-endian length and a JSON array of `links.control` messages. Traffic is
light (a few messages per second and child), so every `send` is one frame and one write. Either
process sees the end of the other as the end of the link, however it died.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, cast

import msgspec

from shardrt.errors import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

FRAME_BYTES_MAX = 16 * 1024 * 1024
_HEADER = 4


class ControlLink(asyncio.Protocol):
    """One end of the link. Made by `connect_control`.

    Messages arrive in order, each by one call of `on_message` from the loop. `on_closed` is
    called exactly once, whichever side ended the link.
    """

    def __init__(
        self,
        decoder_type: Any,
        on_message: Callable[[Any], None],
        on_closed: Callable[[], None],
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._decoder = msgspec.json.Decoder(list[decoder_type])
        self._encoder = msgspec.json.Encoder()
        self._on_message = on_message
        self._on_closed = on_closed
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()

    def send(self, *messages: msgspec.Struct) -> None:
        """Send one frame; silently dropped when the link has ended."""
        if self._transport is None or self._transport.is_closing():
            return
        body = self._encoder.encode(messages)
        self._transport.write(len(body).to_bytes(_HEADER, "big") + body)

    def close(self) -> None:
        """End the link, after what was sent has left."""
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until the link has ended and `on_closed` was called."""
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not subclasses

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            for message in self._messages():
                self._on_message(message)
        except (ProtocolViolation, msgspec.DecodeError) as error:
            logger.error("control link broken: %s", error)  # noqa: TRY400 - one line is enough
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        self._transport = None
        self._closed.set()
        self._on_closed()

    def _messages(self) -> list[Any]:
        messages: list[Any] = []
        start = 0
        while len(self._received) - start >= _HEADER:
            size = int.from_bytes(self._received[start : start + _HEADER], "big")
            if size > self._frame_bytes_max:
                raise ProtocolViolation(f"frame of {size} bytes exceeds {self._frame_bytes_max}")
            end = start + _HEADER + size
            if len(self._received) < end:
                break
            messages += self._decoder.decode(self._received[start + _HEADER : end])
            start = end
        del self._received[:start]
        return messages


async def connect_control(
    fd: int,
    decoder_type: Any,
    on_message: Callable[[Any], None],
    on_closed: Callable[[], None],
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> ControlLink:
    """Take over one end of a socket pair, given as a file descriptor.

    Args:
        fd: the descriptor; the link owns it from now on.
        decoder_type: what arrives here: `control.ToChild` or `control.FromChild`.
        on_message: called with each message.
        on_closed: called once, when the link has ended.
        frame_bytes_max: larger frames end the link.
    """
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(
        lambda: ControlLink(decoder_type, on_message, on_closed, frame_bytes_max), sock=sock
    )
    return link
