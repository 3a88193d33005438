"""What links over a byte stream share: batches out, batches in, and their end.

Messages sent within one turn of the loop are encoded together and leave as one write. While
the peer reads too slowly they are held back as they are, unencoded, up to a limit.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, cast

from shardrt.errors import PayloadTooLarge, ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import Accept, LinkHandler
    from shardrt.links.frames import Codec

logger = logging.getLogger(__name__)

WRITE_BYTES_HIGH = 1024 * 1024
"""More unsent bytes than this make a link congested."""

HELD_MESSAGES_MAX = 1_000_000
"""More messages held back than this end the link: its peer has stopped reading."""

PACE_S = 0.002
"""After a batch of many messages, or any while its sender is busy, the next leaves no sooner than
that: while many come it gathers more, and wakes the peer less often."""
MANY = 3

CLOSE_S = 2.0
"""What was sent before `close` has so long to leave: a frozen peer would never take it."""


class StreamLink(asyncio.Protocol):
    """A link over a stream; subclasses say what a frame looks like on it."""

    def __init__(
        self, codec: Codec, accept: Accept, is_busy: Callable[[], bool] = lambda: False
    ) -> None:
        self.codec = codec
        self._is_busy = is_busy
        self._accept = accept
        self._handler: LinkHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._not_before_s = -math.inf
        self._held: list[Any] = []
        """Messages to send. A flush is scheduled while it is not empty, unless congested."""
        self._congested = False
        self._closing = False
        self._last_moment: asyncio.TimerHandle | None = None
        """When a link that was closed ends at the latest."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._closing

    @property
    def is_congested(self) -> bool:
        return self._congested

    def send(self, message: Any) -> None:
        held = self._held
        held.append(message)
        if len(held) == 1:
            if (wait_s := self._not_before_s - self._loop.time()) > 0:
                self._loop.call_later(wait_s, self._flush)
            else:
                self._loop.call_soon(self._flush)
        elif len(held) > HELD_MESSAGES_MAX:
            self._abort(f"{len(held)} messages wait for a peer that does not read")

    def close(self) -> None:
        if self._closing:
            return
        if self._transport is not None:
            self._congested = False
            self._flush()
            self._say_goodbye()
            self._transport.close()
            self._last_moment = self._loop.call_later(CLOSE_S, self._transport.abort)
        self._closing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's are not subclasses
        stream.set_write_buffer_limits(high=WRITE_BYTES_HIGH)
        self._transport = stream

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        self._transport = None
        self._held = []
        if self._last_moment is not None:
            self._last_moment.cancel()
        if self._handler is not None:
            self._handler.on_closed()

    def _opened(self) -> None:
        """Tell who listens. Subclasses call it once messages may flow."""
        self._handler = self._accept(self)

    def _received(self, body: bytes) -> None:
        """Take a complete frame. Subclasses call it."""
        if self._closing or self._handler is None:
            return
        try:
            self._handler.on_messages(self.codec.decode(body))
        except ProtocolViolation as error:
            self._abort(str(error))

    def _frames(self, bodies: list[bytes]) -> list[bytes]:
        """Return the bytes that carry these bodies. Subclasses define it."""
        raise NotImplementedError

    def _say_goodbye(self) -> None:
        """Write what the protocol wants to be said before the end."""

    def _flush(self) -> None:
        if self._transport is None:
            self._held = []
        elif self._held and not self._congested:
            messages, self._held = self._held, []
            if len(messages) >= MANY or self._is_busy():
                self._not_before_s = self._loop.time() + PACE_S
            try:
                self._write(self._frames(self.codec.encode(messages)))
            except PayloadTooLarge as error:
                self._abort(str(error))

    def _write(self, pieces: list[bytes]) -> None:
        # Not by `writelines`: that of CPython 3.12.0 to 3.12.8 and 3.13.0 to 3.13.1 never says that
        # too much waits to leave (CVE-2024-12254), and fails if the peer has hung up.
        assert self._transport is not None
        self._transport.write(b"".join(pieces))

    def _abort(self, reason: str) -> None:
        logger.error("link ended: %s", reason)
        self._closing = True
        self._held = []
        if self._transport is not None:
            self._transport.abort()
