"""The proxy is a fault that other tests rely on: it must do what it says."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.chaos.proxy import HERE, IN, OUT, FaultProxy
from tests.leaks import all_closed
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TURNS = 12
"""More than it takes until somebody who comes is led through."""


class Far:
    """A server that keeps what it is sent, and says it back."""

    def __init__(self) -> None:
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(100):
                self.received += chunk
                writer.write(chunk)
        except ConnectionResetError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Far, FaultProxy]]:
    far = Far()
    server = await asyncio.start_server(far.serve, HERE, 0)
    async with server:
        proxy = FaultProxy(server.sockets[0].getsockname()[1])
        await proxy.start()
        try:
            yield far, proxy
        finally:
            await proxy.close()


@in_loop
async def test_what_is_held_arrives_later() -> None:
    async with proxied() as (far, proxy):
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.hold()
        writer.write(b"b")
        late_reader, late_writer = await asyncio.open_connection(HERE, proxy.port)
        late_writer.write(b"c")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(1)
        assert far.received == b"a"
        # Also of somebody who has gone meanwhile.
        writer.write_eof()
        proxy.heal()
        assert await reader.read() == b"b"
        assert await late_reader.readexactly(1) == b"c"
        writer.close()
        late_writer.close()


@in_loop
async def test_a_cut_ends_every_connection_until_it_is_healed() -> None:
    async with proxied() as (_, proxy):
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert await is_refused(proxy.port)
        proxy.heal()
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        writer.close()


@in_loop
async def test_what_is_muted_is_lost_in_one_direction_only() -> None:
    async with proxied() as (far, proxy):
        reader, writer = await asyncio.open_connection(HERE, proxy.port)
        idle_reader, idle_writer = await asyncio.open_connection(HERE, proxy.port)
        for each in (writer, idle_writer):
            each.write(b"a")
        assert await reader.readexactly(1) + await idle_reader.readexactly(1) == b"aa"
        proxy.mute(OUT)
        writer.write(b"b")
        await eventually(lambda: far.received == b"aab")
        proxy.heal()
        assert await is_over(reader)
        proxy.mute(IN)
        late_reader, late_writer = await asyncio.open_connection(HERE, proxy.port)
        late_writer.write(b"c")
        idle_writer.write(b"d")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await late_reader.read(1)
        proxy.heal()
        assert await is_over(idle_reader)
        assert await is_over(late_reader)
        assert far.received == b"aab"
        for each in (writer, idle_writer, late_writer):
            each.close()


async def is_refused(port: int) -> bool:
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        return await is_over(reader)
    finally:
        writer.close()


async def is_over(reader: asyncio.StreamReader) -> bool:
    """Whether a connection has ended, one way or the other, instead of saying something."""
    try:
        return await reader.read(1) == b""
    except ConnectionResetError:
        return True


def test_a_closed_proxy_leaves_nothing_open_whoever_has_just_come() -> None:
    async def close_after(turns: int, far: socket.socket, guest: socket.socket) -> None:
        proxy = FaultProxy(far.getsockname()[1])
        await proxy.start()
        with suppress(BlockingIOError):
            guest.connect((HERE, proxy.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await proxy.close()

    # Neither those who come nor the one they are led to do anything about it.
    with all_closed(), socket.create_server((HERE, 0)) as far:
        for turns in range(TURNS):
            with socket.socket() as guest:
                guest.setblocking(False)
                in_loop(close_after)(turns, far, guest)
