"""Links over Unix sockets."""

import asyncio
import random
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import Raw

from shardrt.errors import ConfigInvalid, ProtocolViolation
from shardrt.links import stream
from shardrt.links.backoff import Backoff
from shardrt.links.messages import Answer, Ask, FromShard, ToShard
from shardrt.links.stream import MANY, WRITE_BYTES_HIGH
from shardrt.links.unix import Dialer, UnixServer, listen_unix
from tests.links.ends import End
from tests.loops import in_loop

QUICK = {"min_s": 0.001, "max_s": 0.01}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sockets" / "s")


@asynccontextmanager
async def dialling(path: str, near: End) -> AsyncIterator[None]:
    backoff = Backoff(**QUICK, rng=random.Random(0))
    task = asyncio.create_task(Dialer(path, FromShard, near.accept, backoff=backoff).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def linked(path: str) -> AsyncIterator[tuple[End, End, UnixServer]]:
    near, far = End(), End()
    server = await listen_unix(path, ToShard, far.accept)
    try:
        async with dialling(path, near):
            await near.until(lambda: near.opened == 1)
            await far.until(lambda: far.opened == 1)
            yield near, far, server
    finally:
        await server.close()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_messages_arrive_in_order_both_ways(path: str, factory) -> None:
    async def main() -> None:
        async with linked(path) as (near, far, _):
            asks = [Ask(seq, Raw(b'["cluster"]')) for seq in range(5000)]
            answers = [Answer(seq, Raw(b"1")) for seq in range(5000)]
            for ask, answer in zip(asks, answers, strict=True):
                near.link.send(ask)
                far.link.send(answer)
            await far.until(lambda: len(far.messages) == 5000)
            await near.until(lambda: len(near.messages) == 5000)
            assert far.messages == asks
            assert near.messages == answers
        await near.until(lambda: near.closed == 1)
        await far.until(lambda: far.closed == 1)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@in_loop
async def test_what_is_sent_in_one_turn_arrives_as_one_batch(path: str) -> None:
    async with linked(path) as (near, far, _):
        for seq in range(100):
            near.link.send(Ask(seq, Raw(b"0")))
        await far.until(lambda: len(far.messages) == 100)
        assert far.batches == [100]


@in_loop
async def test_after_a_batch_of_many_the_next_gathers(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PACE_S", 3600.0)
    async with linked(path) as (near, far, _):
        for number, sent in enumerate((MANY - 1, 1, MANY), 1):
            for seq in range(sent):
                near.link.send(Ask(seq, Raw(b"0")))
            await far.until(partial(came, far, number))
        near.link.send(Ask(0, Raw(b"0")))
        await asyncio.sleep(0)
        near.link.send(Ask(1, Raw(b"0")))
        near.link.close()
        await far.until(lambda: far.closed == 1)
        assert far.batches == [MANY - 1, 1, MANY, 2]


@in_loop
async def test_while_its_sender_is_busy_a_link_gathers(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PACE_S", 3600.0)
    async with linked(path) as (near, far, _):
        busy = [False, True]
        monkeypatch.setattr(near.link, "_is_busy", lambda: busy.pop(0))
        for number in (1, 2):
            near.link.send(Ask(number, Raw(b"0")))
            await far.until(partial(came, far, number))
        for number in (3, 4):
            near.link.send(Ask(number, Raw(b"0")))
            await asyncio.sleep(0)
        busy.append(False)
        near.link.close()
        await far.until(lambda: far.closed == 1)
        assert far.batches == [1, 1, 2]


@in_loop
async def test_closing_lets_out_what_was_sent(path: str) -> None:
    async with linked(path) as (near, far, _):
        far.link.send(Answer(1))
        far.link.close()
        far.link.send(Answer(2))
        await near.until(lambda: near.closed == 1)
        assert near.messages == [Answer(1)]
        assert not far.link.is_open


@in_loop
async def test_a_link_that_broke_is_dialled_again(path: str) -> None:
    async with linked(path) as (near, far, _):
        far.link.close()
        await near.until(lambda: near.opened == 2)
        near.link.send(Ask(1, Raw(b"0")))
        await far.until(lambda: bool(far.messages))
        assert near.closed == 1


@in_loop
async def test_a_server_that_comes_later_is_found(path: str) -> None:
    near, far = End(), End()
    async with dialling(path, near):
        server = await listen_unix(path, ToShard, far.accept)
        await far.until(lambda: far.opened == 1)
        await server.close()
        await near.until(lambda: near.closed == 1)
        # The socket of the predecessor is gone; a successor takes its place.
        server = await listen_unix(path, ToShard, far.accept)
        await far.until(lambda: far.opened == 2)
        await server.close()
        await near.until(lambda: near.closed == 2)


@in_loop
async def test_the_socket_of_a_dead_process_is_replaced(path: str) -> None:
    near, far = End(), End()
    dead = await listen_unix(path, ToShard, far.accept)
    successor = await listen_unix(path, ToShard, far.accept)
    async with dialling(path, near):
        await near.until(lambda: near.opened == 1)
    await dead.close()
    await successor.close()


@in_loop
async def test_others_cannot_reach_the_sockets(path: str) -> None:
    async with linked(path):
        assert mode_of(Path(path).parent) == 0o700
        assert mode_of(Path(path)) == 0o600
    assert mode_of(Path(path)) is None


def mode_of(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


@in_loop
async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="longer than"):
        await listen_unix(str(tmp_path / ("x" * 120)), ToShard, End().accept)


@pytest.mark.parametrize(
    "sent", [b"\xff\xff\xff\xff", b"\0\0\0\2{}", b"\0\0\0\1[", b'\0\0\0\x0e[["bogus",1]]  ']
)
@in_loop
async def test_bytes_that_are_no_frame_end_that_link_only(path: str, sent: bytes) -> None:
    async with linked(path) as (near, far, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert far.closed == 1
        near.link.send(Ask(1, Raw(b"0")))
        await far.until(lambda: bool(far.messages))


@in_loop
async def test_a_listener_can_end_a_link_whose_messages_make_no_sense(path: str) -> None:
    async with linked(path) as (near, far, _):
        far.on_batch = refuse
        near.link.send(Ask(1, Raw(b"0")))
        await near.until(lambda: near.closed == 1)


def refuse(messages: object) -> None:
    raise ProtocolViolation("not what I want to hear")


@in_loop
async def test_a_peer_that_does_not_read_makes_the_link_congested(path: str) -> None:
    far = End()
    server = await listen_unix(path, ToShard, far.accept)
    reader, writer = await asyncio.open_unix_connection(path)
    await far.until(lambda: far.opened == 1)
    reading: Any = writer.transport
    reading.pause_reading()
    payload = Raw(b'"' + b"x" * (WRITE_BYTES_HIGH // 2) + b'"')
    sent = 0
    while not congested(far):
        far.link.send(Answer(sent, payload))
        sent += 1
        await asyncio.sleep(0)
    far.link.send(Answer(sent))
    reading.resume_reading()
    received = 0
    async with asyncio.timeout(10):
        while received < sent * (WRITE_BYTES_HIGH // 2):
            received += len(await reader.read(1 << 20))
    assert not congested(far)
    writer.close()
    await writer.wait_closed()
    await server.close()


def congested(end: End) -> bool:
    return end.link.is_congested


def came(end: End, batches: int) -> bool:
    return len(end.batches) == batches
