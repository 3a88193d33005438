"""Hosts that fall silent, and how soon that is found out. In virtual time, without sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from shardrt.links import websocket
from shardrt.links.frames import Codec
from shardrt.links.messages import Ask, ToClient
from shardrt.links.websocket import (
    AWAITED_TICKS,
    IDLE_TICKS,
    RESULT_TICKS,
    TICK_S,
    WebSocketLink,
)
from shardrt.testing.virtual import VirtualLoop, pass_time, run_virtual
from tests.links.ends import End

LATENCY_S = 0.01
SOON_S = 5.0
PONG = bytes([0x80 | Opcode.PONG, 0])


class Host(asyncio.Transport):
    """The transport of a client's link, and the host behind it: it answers nothing but pings."""

    def __init__(self) -> None:
        super().__init__()
        self.silence_ticks = IDLE_TICKS
        self.is_frozen = False
        self.unread: list[bytes] = []
        """What came while it was frozen."""
        self.unsent_bytes = 0
        """What has not left the client, as it is told."""
        self.pings = 0
        self.ended_s: float | None = None
        self.end = End()
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=None)
        self.link = WebSocketLink(
            Codec(ToClient), self.end.accept, "ws://host/link", None, lambda: self.silence_ticks
        )
        self.link.connection_made(self)

    def write(self, data: Any) -> None:
        self._loop.call_later(LATENCY_S, self._take, data)

    def _take(self, data: bytes) -> None:
        if self.is_frozen:
            self.unread.append(data)
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.PING:
                self.pings += 1
        for piece in self._protocol.data_to_send():
            self.link.data_received(piece)

    def thaw(self) -> None:
        self.is_frozen = False
        unread, self.unread = self.unread, []
        for data in unread:
            self._take(data)

    def abort(self) -> None:
        self.ended_s = self._loop.time()
        self.link.connection_lost(None)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def linked() -> Host:
    host = Host()
    await host.link.accepted
    return host


def test_a_host_that_freezes_while_somebody_waits_is_left_within_five_seconds() -> None:
    async def test() -> None:
        for idle_s in (0.0, 0.3, 7.9, 19.95, 61.0):
            host = await linked()
            await pass_time(idle_s)
            host.is_frozen = True
            await pass_time(idle_s / 10)
            host.silence_ticks = AWAITED_TICKS
            host.link.send(Ask(1, Raw(b"0")))
            asked_s = asyncio.get_running_loop().time()
            await pass_time(SOON_S + LATENCY_S)
            assert host.ended_s is not None, idle_s
            assert host.ended_s - asked_s <= SOON_S
            assert host.end.closed == 1

    run_virtual(test())


def test_a_host_that_takes_its_time_is_not_left() -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        host.link.send(Ask(1, Raw(b"0")))
        await pass_time(3600)
        assert host.link.is_open
        assert host.pings <= 3600 / TICK_S / 2, "one every other second at most"

    run_virtual(test())


def test_a_host_that_stutters_is_not_left() -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        for _ in range(20):
            host.is_frozen = True
            await pass_time(2.9)
            host.thaw()
            await pass_time(0.5)
        assert host.link.is_open

    run_virtual(test())


def test_an_idle_link_is_looked_after_seldom() -> None:
    async def test() -> None:
        host = await linked()
        await pass_time(600)
        assert host.link.is_open
        assert 600 / (IDLE_TICKS + 2) <= host.pings <= 600 / IDLE_TICKS
        host.is_frozen = True
        await pass_time(IDLE_TICKS * TICK_S)
        assert host.link.is_open
        await pass_time(2 * IDLE_TICKS * TICK_S)
        assert host.end.closed == 1

    run_virtual(test())


def test_a_client_that_was_frozen_itself_does_not_blame_the_host() -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for moment in range(20):
            await pass_time(0.37 * moment)
            loop.spend(60)
        assert host.link.is_open

    run_virtual(test())


@pytest.mark.parametrize("ends", [False, True])
def test_a_long_upload_has_its_time(ends: bool) -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        await pass_time(10.5)
        host.is_frozen = True  # as if what it is sent took so long
        host.link.send(Ask(1, Raw(b'"' + 4 * 1024 * 1024 * b"x" + b'"')))
        await pass_time(15)
        assert host.link.is_open
        if ends:
            host.thaw()
        await pass_time(10)
        assert host.link.is_open is ends

    run_virtual(test())


def upload(host: Host, ticks: int) -> None:
    """Send what takes so long."""
    size = ticks * websocket.UPLOAD_BYTES_PER_TICK
    host.link.send(Ask(1, Raw(b'"' + size * b"x" + b'"')))


def test_a_long_upload_has_its_time_also_if_the_host_says_something_meanwhile() -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        await pass_time(10.5)
        host.is_frozen = True
        upload(host, 16)
        for _ in range(2):
            await pass_time(SOON_S)
            host.link.data_received(PONG)  # of earlier
        await pass_time(SOON_S)
        assert host.link.is_open
        await pass_time(SOON_S)
        assert not host.link.is_open

    run_virtual(test())


@pytest.mark.parametrize("unsent", [0, 100])
def test_what_was_uploaded_long_ago_gives_no_time(
    unsent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was ever written at a high rate would be on its way for hours at a low one."""
    monkeypatch.setattr(websocket, "UPLOAD_BYTES_PER_TICK", 1024)
    monkeypatch.setattr(websocket, "IN_FLIGHT_BYTES_MAX", 32 * 1024)

    async def test() -> None:
        host = await linked()
        host.silence_ticks = AWAITED_TICKS
        host.unsent_bytes = unsent * 1024
        for _ in range(100):
            upload(host, 10)
            await pass_time(0.1)
            host.link.data_received(PONG)
        host.is_frozen = True
        await pass_time(unsent + 20)
        assert host.link.is_open
        await pass_time(20)
        assert not host.link.is_open

    run_virtual(test())


def test_a_client_that_awaits_results_only_pings_less() -> None:
    async def test() -> None:
        host = await linked()
        host.silence_ticks = RESULT_TICKS
        await pass_time(600)
        assert 600 / (RESULT_TICKS + 2) <= host.pings <= 600 / RESULT_TICKS
        host.is_frozen = True
        await pass_time(2 * SOON_S)
        assert host.end.closed == 1

    run_virtual(test())
