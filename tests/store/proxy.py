"""A TCP proxy in front of a server, to cut connections at chosen moments.

It knows just enough of PostgreSQL's protocol to tell answers apart: each message from the
server is a type byte and a length.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READY_FOR_QUERY = b"Z"
COMMAND_COMPLETE = b"C"


class Proxy:
    """Forwards until told otherwise."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self.cut_before: bytes | None = None
        """Cut the connection instead of handing on a message of this type."""
        self.holding = False
        """Keep what clients send, and send it on only after they are gone."""
        self.hold_at: bytes | None = None
        """Begin with that at the first request that contains this, if it is not empty."""
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()

    async def serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            server, requests = await asyncio.open_connection(*self._target)
        except OSError:
            answers.close()
            return
        link = (answers, requests)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(client, requests))
                tasks.create_task(self._answers(server, answers))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._links.discard(link)
            for writer in link:
                writer.close()

    async def _requests(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while content := await client.read(2**16):
            if self.hold_at and self.hold_at in content:
                self.holding = True
            if self.holding:
                self.held.set()
                await self.let_go.wait()
            server.write(content)
            await server.drain()
        raise ConnectionResetError

    async def _answers(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while True:
            kind = await server.readexactly(1)
            length = await server.readexactly(4)
            body = await server.readexactly(int.from_bytes(length) - 4)
            if kind == self.cut_before:
                self.cut_before = None
                raise ConnectionResetError
            client.write(kind + length + body)
            await client.drain()

    async def close(self) -> None:
        self.let_go.set()
        await self.drop()

    async def drop(self) -> None:
        """Cut all connections."""
        for link in list(self._links):
            for writer in link:
                writer.transport.abort()
        await eventually(lambda: not self._links)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname
    proxy = Proxy((parts.hostname, parts.port or 5432))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user_info = parts.netloc.rpartition("@")[0]
    # In the clear, as the proxy reads along.
    query = f"{parts.query}&sslmode=disable&gssencmode=disable"
    through = parts._replace(netloc=f"{user_info}@127.0.0.1:{port}", query=query)
    try:
        yield proxy, through.geturl()
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
