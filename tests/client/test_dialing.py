"""Dialling: whoever gives up, at whichever moment, leaves nothing behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from shardrt import Client
from shardrt.errors import ConnectionLost
from shardrt.links.frames import Codec
from shardrt.links.messages import PROTOCOL, FromClient, Hello, Welcome
from tests.leaks import all_closed
from tests.loops import in_loop
from tests.waiting import eventually

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


class OldHello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """`Hello` before it told what its client knows."""

    client: str
    protocol: int = PROTOCOL
    version: str = ""


def test_old_hosts_take_new_clients_and_new_hosts_old_ones() -> None:
    for wants in (False, True):
        new = Codec(FromClient).encode([Hello("c", PROTOCOL, "1", wants)])[0]
        assert Codec(OldHello).decode(new) == [OldHello("c", PROTOCOL, "1")]
    old = Codec(FromClient).encode([OldHello("c", PROTOCOL, "0")])[0]
    assert Codec(FromClient).decode(old) == [Hello("c", PROTOCOL, "0", wants_serving=False)]


@in_loop
async def test_only_clients_that_know_several_hosts_ask_what_each_serves() -> None:
    asked: list[Hello] = []

    async def handler(connection: ServerConnection) -> None:
        asked.extend(Codec(FromClient).decode(await connection.recv()))
        await connection.send(WELCOME)
        await connection.wait_closed()

    async with serve(handler, HERE, 0) as one, serve(handler, HERE, 0) as other:
        ports = [next(iter(each.sockets)).getsockname()[1] for each in (one, other)]
        urls = [f"http://{HERE}:{port}" for port in ports]
        async with await Client.connect(urls):
            await eventually(lambda: len(asked) == 2)
            assert [each.wants_serving for each in asked] == [True, True]
            assert asked[0].client == asked[1].client, "they are of one session"
        async with await Client.connect(urls[0]):
            assert [each.wants_serving for each in asked[2:]] == [False]
