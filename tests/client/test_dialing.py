"""Dialling: whoever gives up, at whichever moment, leaves nothing behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest
from websockets.asyncio.server import ServerConnection, serve

from shardrt import Client
from shardrt.errors import ConnectionLost
from shardrt.links.frames import Codec
from shardrt.links.messages import PROTOCOL, FromClient, Welcome
from tests.leaks import all_closed

HERE = "127.0.0.1"
WELCOME = Codec(FromClient).encode([Welcome(PROTOCOL, "0", 4, "host", 1000)])[0]
TURNS = 60
"""More than it takes until a client is welcomed, or told off."""

Host = Callable[[], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A process that does not run: its system takes connections, and nobody answers."""
    with socket.create_server((HERE, 0)) as listener:
        yield listener.getsockname()[1]


def serving(*, welcomes: bool) -> Host:
    """A host that welcomes its client, or hangs up instead."""

    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        if welcomes:
            await connection.send(WELCOME)
            await connection.wait_closed()
        else:
            connection.transport.abort()

    @asynccontextmanager
    async def host() -> AsyncIterator[int]:
        async with serve(handler, HERE, 0) as server:
            yield next(iter(server.sockets)).getsockname()[1]

    return host


async def given_up_after(turns: int, host: Host) -> bool:
    """Give up to connect after so many turns of the loop; return whether it took longer."""
    async with host() as port:
        connecting = asyncio.ensure_future(Client.connect(f"http://{HERE}:{port}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        in_time = connecting.cancel()
        with suppress(ConnectionLost, asyncio.CancelledError):
            await (await connecting).close()
        return in_time


@pytest.mark.parametrize(
    "host",
    [silent, serving(welcomes=False), serving(welcomes=True)],
    ids=["silent", "hangs up", "welcomes"],
)
def test_a_client_that_gives_up_at_any_moment_leaves_nothing_open(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with all_closed():
        caplog.clear()
        in_time = [asyncio.run(given_up_after(turns, host)) for turns in range(TURNS)]
    assert in_time[0]
    assert in_time[-1] == (host is silent), "all moments were tried"
    said = [each.getMessage() for each in caplog.records if each.name == "asyncio"]
    assert said == [], "errors that nobody heard"
