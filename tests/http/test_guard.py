"""Connections that are too many, too slow, or say too much before they say what they want."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from shardrt.config import LimitSettings
from shardrt.http.guard import LET_GO_MAX, Door
from shardrt.testing.virtual import pass_time, run_virtual
from tests.fake_host import LIMITS, FakeHost
from tests.loops import in_loop
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: here\r\n"


@asynccontextmanager
async def connected(
    host: FakeHost,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def limits(**more: float) -> LimitSettings:
    return LimitSettings(payload_bytes_max=LIMITS.payload_bytes_max, **more)  # type: ignore[arg-type]


async def status_of(reader: asyncio.StreamReader) -> int:
    return int((await reader.readline()).split()[1])


@pytest.mark.parametrize("name", ["connections_max", "connections_per_address_max"])
@in_loop
async def test_who_comes_when_it_is_full_is_told_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeHost.running(limits=limits(**{name: 3})) as host, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(connected(host))
        client = await host.client()  # a WebSocket counts, too
        for _ in range(2):
            async with connected(host) as (reader, _writer):
                assert await status_of(reader) == 503
                assert b'{"message":"too many connections"}' in await reader.read()
        assert caplog.text.count("connection turned away: there are 3, of them 3") == 1
        await client.close()
        await stack.aclose()
        async with httpx.AsyncClient(base_url=host.url) as http:

            async def is_served() -> bool:
                return (await http.get("/health/live")).status_code == 200

            await eventually(is_served)
            for _ in range(6):  # none of those that have gone is counted for ever
                again = await host.client()
                await again.start("hello")
                await again.close()


@pytest.mark.parametrize("said", [b"", b"GET", REQUEST])
@in_loop
async def test_who_does_not_come_to_the_point_is_let_go(said: bytes) -> None:
    async with FakeHost.running(limits=limits(header_s_max=0.2)) as host:
        async with connected(host) as (reader, writer):
            writer.write(said)
            assert (await reader.read()).startswith(b"HTTP/1.1 408")


class Slow:
    """A connection that only notes when it is let go."""

    def __init__(self, let_go: list[float]) -> None:
        self.loop = asyncio.get_running_loop()
        self._let_go = let_go

    def on_too_slow(self) -> None:
        self._let_go.append(self.loop.time())


def test_many_who_are_slow_are_let_go_a_few_at_a_time() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        let_go: list[float] = []
        door = Door(limits(header_s_max=10.0))
        slow = [Slow(let_go) for _ in range(10 * LET_GO_MAX)]
        for each in slow:
            door.expect(each)  # type: ignore[arg-type]
        await pass_time(4.0)
        late = Slow(let_go)
        door.expect(late)  # type: ignore[arg-type]
        for each in slow[::2]:
            door.complete(each)  # type: ignore[arg-type]
        await pass_time(5.99)
        assert let_go == []
        per_turn: list[int] = []
        while len(let_go) < len(slow) // 2:
            before = len(let_go)
            await pass_time(0.01 if not before else 0.0)
            per_turn.append(len(let_go) - before)
        assert max(per_turn) <= LET_GO_MAX
        assert let_go[-1] - 10.0 < 0.1, "and at once, but for that"
        await pass_time(14.5 - loop.time())
        assert len(let_go) == len(slow) // 2 + 1
        assert let_go[-1] == pytest.approx(14.0)
        door.expect(late)  # type: ignore[arg-type]
        await pass_time(10.5)
        assert let_go[-1] == pytest.approx(24.5)
        door.complete(late)  # type: ignore[arg-type]

    run_virtual(test())


@in_loop
async def test_who_comes_again_has_to_come_to_the_point_too() -> None:
    async with FakeHost.running(limits=limits(header_s_max=0.2)) as host:
        async with connected(host) as (reader, writer):
            writer.write(REQUEST + b"\r\n")
            assert await status_of(reader) == 200
            await reader.readuntil(b'{"status":"live"}')
            writer.write(b"GET")
            assert await status_of(reader) == 408


@in_loop
async def test_what_is_no_http_is_refused() -> None:
    async with FakeHost.running() as host, connected(host) as (reader, writer):
        writer.write(b"\x16\x03\x01\x00\r\n\r\n")
        assert await status_of(reader) == 400


@in_loop
async def test_who_takes_long_to_answer_is_not_the_client() -> None:
    async with FakeHost.running(limits=limits(header_s_max=0.1)) as host:
        host.shard.hold = True
        async with httpx.AsyncClient(base_url=host.url) as http:
            asked = asyncio.ensure_future(http.get("/runtime/orchestrations/x"))
            await host.shard.until(lambda: bool(host.shard.held))
            async with connected(host) as (reader, _):
                assert await status_of(reader) == 408  # by now it would have been let go
            host.shard.release()
            assert (await asked).status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"x" * 5000,
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        REQUEST + b"X-Much: " + b"x" * 5000,
        REQUEST + b"X-Much: " + b"x" * 5000 + b"\r\n\r\n",
        REQUEST + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
@in_loop
async def test_a_header_that_is_too_long_is_refused(said: bytes) -> None:
    async with FakeHost.running(limits=limits(header_bytes_max=4096)) as host:
        async with connected(host) as (reader, writer):
            writer.write(said)
            assert await status_of(reader) == 431
            assert b"exceeds 4096 bytes" in await reader.read()


@in_loop
async def test_a_body_is_no_header() -> None:
    async with FakeHost.running(limits=limits(header_bytes_max=4096)) as host:
        async with httpx.AsyncClient(base_url=host.url) as http:
            for number in range(3):
                body = {"input": "x" * 20_000, "instanceId": f"i{number}"}
                started = await http.post("/runtime/orchestrations/start/hello", json=body)
                assert started.status_code == 202


@in_loop
async def test_a_hundred_that_say_nothing_hinder_nobody() -> None:
    async with FakeHost.running() as host, AsyncExitStack() as stack:
        for _ in range(100):
            _, writer = await stack.enter_async_context(connected(host))
            writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        async with await host.client() as client, httpx.AsyncClient(base_url=host.url) as http:
            for _ in range(20):
                await client.start("hello")
                answer = await http.post("/runtime/orchestrations/start/hello", json={})
                assert answer.status_code == 202
