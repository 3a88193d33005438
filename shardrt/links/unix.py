"""Links over Unix sockets, between the processes of one host.

`listen_unix` serves a path; a `Dialer` keeps one link to a path alive, and dials again
whenever it breaks. The directory of the sockets is what keeps others out: it is made with
mode 0700.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardrt.errors import ConfigInvalid, ProtocolViolation
from shardrt.links.backoff import Backoff
from shardrt.links.frames import Codec, FrameReader, framed
from shardrt.links.stream import StreamLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardrt.links.base import Accept, LinkHandler

logger = logging.getLogger(__name__)

PATH_BYTES_MAX = 103
"""What the shortest ``sun_path`` among our platforms can take (macOS; Linux has 107)."""


class UnixLink(StreamLink):
    """One end of a Unix-socket link. Made by `listen_unix` and `Dialer`."""

    def __init__(self, codec: Codec, accept: Accept) -> None:
        super().__init__(codec, accept)
        self._reader = FrameReader(codec.size_max)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened()

    def data_received(self, data: bytes) -> None:
        try:
            bodies = self._reader.feed(data)
        except ProtocolViolation as error:
            self._abort(str(error))
            return
        for body in bodies:
            self._received(body)

    def _frames(self, bodies: list[bytes]) -> list[bytes]:
        return framed(bodies)


class UnixServer:
    """Accepts links at a path until it is closed. Made by `listen_unix`."""

    def __init__(self, path: str, codec: Codec, accept: Accept) -> None:
        self.path = path
        self._codec = codec
        self._accept = accept
        self._server: asyncio.Server | None = None
        self._links: set[UnixLink] = set()
        self._closed = False

    async def start(self) -> None:
        prepare_socket_path(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connection, self.path)
        Path(self.path).chmod(0o600)  # noqa: ASYNC240 - one call on a local directory

    async def close(self) -> None:
        """End all links, stop listening and remove the socket."""
        self._closed = True
        if self._server is None:
            return
        self._server.close()
        for link in list(self._links):
            link.close()
        await self._server.wait_closed()
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            Path(self.path).unlink()  # noqa: ASYNC240 - one call on a local directory

    def _connection(self) -> UnixLink:
        return UnixLink(self._codec, self._registered)

    def _registered(self, link: Any) -> LinkHandler:
        self._links.add(link)
        if self._closed:  # it was accepted just before
            asyncio.get_running_loop().call_soon(link.close)
        return _Registered(self._accept(link), lambda: self._links.discard(link))


class _Registered:
    """Passes on what a link tells, and forgets the link at its end."""

    def __init__(self, handler: LinkHandler, forget: Callable[[], None]) -> None:
        self.on_messages = handler.on_messages
        self._handler = handler
        self._forget = forget

    def on_closed(self) -> None:
        self._forget()
        self._handler.on_closed()


async def listen_unix(path: str, incoming: Any, accept: Accept) -> UnixServer:
    """Serve links at `path`, which is made accessible to this user only.

    Args:
        path: of the socket; one left over by a dead process is replaced.
        incoming: the type of what arrives, such as `messages.FromShard`, or a codec for it.
        accept: called with each new link.
    """
    codec = incoming if isinstance(incoming, Codec) else Codec(incoming)
    server = UnixServer(path, codec, accept)
    await server.start()
    return server


def prepare_socket_path(path: str) -> None:
    """Make the directory of a socket with mode 0700 and remove a left-over socket."""
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ConfigInvalid(f"socket path is longer than {PATH_BYTES_MAX} bytes: {path}")
    socket_path = Path(path)
    socket_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if socket_path.is_socket():
        socket_path.unlink()


class Dialer:
    """Keeps a link to a Unix socket: dials until it answers, and again whenever it breaks.

    Run `run` as a task; cancelling it ends the link. `accept` is called with each new link,
    and what it returns listens to that one.
    """

    def __init__(
        self, path: str, incoming: Any, accept: Accept, *, backoff: Backoff | None = None
    ) -> None:
        self.path = path
        self._codec = Codec(incoming)
        self._accept = accept
        self._backoff = backoff or Backoff()

    async def run(self) -> None:
        """Keep the link until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            ended = asyncio.Event()
            try:
                _, link = await loop.create_unix_connection(lambda: self._link(ended), self.path)  # noqa: B023 - called at once
            except OSError as error:
                delay_s = self._backoff.next_s()
                logger.debug("cannot dial %s (%s), again in %.2f s", self.path, error, delay_s)
                await asyncio.sleep(delay_s)
                continue
            self._backoff.reset()
            try:
                await ended.wait()
            finally:
                link.close()
            await asyncio.sleep(self._backoff.next_s())

    def _link(self, ended: asyncio.Event) -> UnixLink:
        def accept(link: Any) -> LinkHandler:
            return _Registered(self._accept(link), ended.set)

        return UnixLink(self._codec, accept)
